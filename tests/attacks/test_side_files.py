"""P9. What lies beside the work: letters in a folder of graphs, passes in a work directory."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from builders import tiny
from builders.processors import numbered

from mllmeraser.inference.loading import load
from mllmeraser.inference.replies import greedy_replies
from mllmeraser.records.prompts import Prompt

ir = pytest.importorskip("onnx_ir", reason="the extra 'onnx' is not installed")

PRIVATE = (
    "letter.txt",
    "request.json",
    "people.json",
    "forget.jsonl",
    "vocab of people.txt",
    "onnx/notes.txt",
    "onnx/names.json",
    "licence plate.json",
    "mllmeraser.json",
    "steered.safetensors",
    "model.safetensors.index.json",
    "special_tokens_map.json.txt",
)
KNOWN = ("config.json", "tokenizer.json", "chat_template.jinja", "genai_config.json", "LICENSE", "onnx/vocab.txt")


def test_graphs_take_along_only_files_that_are_known_by_name(tmp_path: Path) -> None:
    from mllmeraser.exporter.onnx.folder import read_folder

    value = ir.Value(name="x", shape=ir.Shape([2]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.Node("", "Identity", [value], num_outputs=1)
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = "logits", value.type, value.shape
    graph = ir.Graph([value], [node.outputs[0]], nodes=[node], opset_imports={"": 20})
    (tmp_path / "onnx").mkdir()
    ir.save(ir.Model(graph, ir_version=10), tmp_path / "onnx" / "decoder.onnx")
    for name in (*PRIVATE, *KNOWN):
        (tmp_path / name).write_text("{}")
    assert set(read_folder(tmp_path).settings) == set(KNOWN)


@pytest.mark.parametrize("there", [False, True], ids=["made", "there already"])
def test_a_work_directory_is_for_its_owner(tmp_path: Path, there: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """It keeps states and replies; it says so, in one line."""
    tiny.model("llava").save_pretrained(tmp_path / "base")
    numbered().save_pretrained(tmp_path / "base")
    work = tmp_path / "work"
    if there:
        work.mkdir()
        work.chmod(0o755)
    checkpoint = load(tmp_path / "base", work_dir=work)
    told = " ".join(capsys.readouterr().err.split())
    assert ("others can look into" if there else "which tell the names of the request") in told
    greedy_replies(checkpoint, [Prompt("w30 w41", None)], max_new_tokens=2)
    files = list(work.iterdir())
    assert files
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    if not there:
        assert stat.S_IMODE(work.stat().st_mode) == 0o700
