"""Steering a directory: what is carried untouched, what is written, and that it is whole or not there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import onnx_ir as ir
import pytest
from builders import graphs, tiny
from builders.checkpoints import contents
from builders.graphs import DECODER, TWIN

from mllmeraser.bundle.bundle import Bundle, save_bundle
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.errors import InputError
from mllmeraser.exporter.onnx import api
from mllmeraser.exporter.onnx.api import onnx_steer
from mllmeraser.exporter.onnx.runtime import DecoderSession

CONFIG = {
    "model_type": "llava",
    "text_config": {"model_type": "llama", "num_hidden_layers": tiny.LAYERS},
    "transformers.js_config": {"use_external_data_format": {"decoder_model_merged.onnx": 1}},
    "auto_map": {"AutoConfig": "somebody/else--configuration.C"},
}


def _identity(output: str) -> ir.Model:
    value = ir.Value(name="x", shape=ir.Shape([2]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.Node("", "Identity", [value], num_outputs=1)
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = output, value.type, value.shape
    return ir.Model(ir.Graph([value], [node.outputs[0]], nodes=[node], opset_imports={"": 20}), ir_version=10)


@pytest.fixture
def given(exported_decoders: dict[str, Path], tmp_path: Path) -> Path:
    """A directory as it would be published for transformers.js."""
    folder = tmp_path / "given"
    (folder / "onnx").mkdir(parents=True)
    for suffix in ("", "_data"):
        shutil.copy(f"{exported_decoders['llava']}{suffix}", folder / f"{DECODER}{suffix}")
    ir.save(_identity("image_features"), folder / "onnx" / "vision_encoder.onnx")
    ir.save(_identity("inputs_embeds"), folder / "onnx" / "embed_tokens.onnx")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "LICENSE").write_text("the licence")
    (folder / "README.md").write_text("---\nlicense: llama2\n---\n# The given card\n")
    (folder / "modeling.py").write_text("raise SystemExit")
    (folder / "pytorch_model.bin").write_text("a pickle")
    (folder / "model.safetensors").write_text("un-steered weights")
    return folder


@pytest.fixture(scope="module")
def part() -> graphs.Part:
    """Steps along the reply, one shared gate."""
    batch = tiny.prompt("llava", 5, 8, 6, 7)
    kernel = {"kind": "kernel", "shape": "step", "threshold": 0.5, "layers": (1, 2), "gate_layer": 1, "steps": 3}
    return tiny.steering(tiny.model("llava"), batch, **kernel)


@pytest.fixture
def bundle(part: graphs.Part) -> Bundle:
    """The bundle of that request."""
    return graphs.bundle(part)


def test_what_is_not_the_decoder_comes_along_byte_for_byte(given: Path, bundle: Bundle, tmp_path: Path) -> None:
    before = contents(given)
    onnx_steer(given, [bundle], tmp_path / "out")
    assert contents(given) == before, "the given directory was written to"
    after = contents(tmp_path / "out")
    same = ["onnx/vision_encoder.onnx", "onnx/embed_tokens.onnx", f"{DECODER}_data", "tokenizer.json", "LICENSE"]
    for name in same:
        assert after[name] == before[name], name
    assert after[TWIN] == before[DECODER]
    assert set(after) == {*same, DECODER, TWIN, "config.json", "README.md", "mllmeraser.json"}
    assert b'license: "llama2"' in after["README.md"] and b"not deletion" in after["README.md"]


def test_the_weights_are_hard_linked_only_when_asked(given: Path, bundle: Bundle, tmp_path: Path) -> None:
    onnx_steer(given, [bundle], tmp_path / "out", link="hard")
    for name in (f"{DECODER}_data", "onnx/vision_encoder.onnx"):
        assert (tmp_path / "out" / name).stat().st_ino == (given / name).stat().st_ino
    for name in ("auto", "copy"):
        onnx_steer(given, [bundle], tmp_path / name, link=name)
        assert (tmp_path / name / f"{DECODER}_data").stat().st_ino != (given / f"{DECODER}_data").stat().st_ino


def test_the_written_graph_steers_and_its_twin_does_not(
    given: Path, bundle: Bundle, part: graphs.Part, tmp_path: Path
) -> None:
    base, batch = tiny.model("llava"), tiny.prompt("llava", 5, 8, 6, 7)
    result = onnx_steer(given, [bundle], tmp_path / "out")
    assert [(graph.name, graph.twin, graph.reply_steps) for graph in result.graphs] == [(DECODER, TWIN, 3)]
    assert result.lines()[1] == f"  {DECODER}: steered, 2 reply positions, the base's graph is {TWIN}"
    expected = graphs.record(tiny.steered(base, part), **batch)
    graphs.assert_equal(graphs.replay(tmp_path / "out" / DECODER, expected), expected)
    plain = graphs.record(base, **batch)
    graphs.assert_equal(graphs.replay(tmp_path / "out" / TWIN, plain), plain)


def test_the_settings_tell_clients_of_the_reply_state(given: Path, bundle: Bundle, tmp_path: Path) -> None:
    onnx_steer(given, [bundle], tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["text_config"]["num_hidden_layers"] == tiny.LAYERS + 1
    assert "auto_map" not in config
    inputs = DecoderSession(tmp_path / "out" / DECODER).inputs
    assert inputs[f"past_key_values.{tiny.LAYERS}.key"].shape == inputs["past_key_values.0.key"].shape


def test_settings_of_a_prompt_only_request_stay(given: Path, tmp_path: Path) -> None:
    part = tiny.steering(tiny.model("llava"), tiny.prompt("llava", 5, 8, 6, 7))
    config = {key: value for key, value in CONFIG.items() if key != "auto_map"}
    (given / "config.json").write_text(json.dumps(config))
    onnx_steer(given, [graphs.bundle(part)], tmp_path / "out")
    assert (tmp_path / "out" / "config.json").read_bytes() == (given / "config.json").read_bytes()


def test_weights_inside_a_graph_move_out_and_are_shared(
    given: Path, bundle: Bundle, part: graphs.Part, tmp_path: Path
) -> None:
    model = ir.load(given / DECODER)
    (given / DECODER).write_bytes(graphs.as_bytes(model))
    (given / f"{DECODER}_data").unlink()
    (given / "config.json").write_text(json.dumps({**CONFIG, "transformers.js_config": {"dtype": "fp32"}}))
    onnx_steer(given, [bundle], tmp_path / "out")
    out = tmp_path / "out"
    assert (out / DECODER).stat().st_size + (out / TWIN).stat().st_size < (given / DECODER).stat().st_size * 2
    config = json.loads((out / "config.json").read_text())
    assert config["transformers.js_config"]["use_external_data_format"] == {"decoder_model_merged.onnx": 1}
    base, batch = tiny.model("llava"), tiny.prompt("llava", 5, 8, 6, 7)
    expected = graphs.record(tiny.steered(base, part), **batch)
    graphs.assert_equal(graphs.replay(out / DECODER, expected), expected)
    plain = graphs.record(base, **batch)
    graphs.assert_equal(graphs.replay(out / TWIN, plain), plain)


def test_a_snapshot_of_the_hub_cache_is_followed_into_its_blobs(given: Path, bundle: Bundle, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "0123", tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    for number, (name, content) in enumerate(contents(given).items()):
        (blobs / str(number)).write_bytes(content)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(blobs / str(number))
    onnx_steer(snapshot, [bundle], tmp_path / "out")
    onnx_steer(given, [bundle], tmp_path / "plain")
    assert contents(tmp_path / "out") == contents(tmp_path / "plain")
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


def test_every_decoder_of_the_directory_is_steered(given: Path, bundle: Bundle, tmp_path: Path) -> None:
    for suffix in ("", "_data"):
        shutil.copy(given / f"{DECODER}{suffix}", given / f"onnx/decoder_model_merged_q4.onnx{suffix}")
    result = onnx_steer(given, [bundle], tmp_path / "out")
    assert [graph.name for graph in result.graphs] == [DECODER, "onnx/decoder_model_merged_q4.onnx"]


def test_the_toggle_as_an_input(given: Path, bundle: Bundle, part: graphs.Part, tmp_path: Path) -> None:
    onnx_steer(given, [bundle], tmp_path / "out", toggle="input")
    assert not (tmp_path / "out" / TWIN).exists()  # a way round the switch
    base, batch = tiny.model("llava"), tiny.prompt("llava", 5, 8, 6, 7)
    for strength in (0.0, 1.0):
        steered = tiny.steered(base, part)
        steered.config.steering_strength = strength
        expected = graphs.record(steered, **batch)
        graphs.assert_equal(graphs.replay(tmp_path / "out" / DECODER, expected, strength), expected)


def test_the_manifest_names_every_file_and_hash(given: Path, bundle: Bundle, tmp_path: Path) -> None:
    onnx_steer(given, [bundle], tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "mllmeraser.json").read_text())
    files = manifest["files"]
    assert set(files) | {"mllmeraser.json"} == set(contents(tmp_path / "out"))
    for name, entry in files.items():
        assert entry["sha256"] == sha256_of(tmp_path / "out" / name)
        assert entry["origin"] == ("tool" if name in (DECODER, "config.json", "README.md") else "base")
    assert manifest["bundles"][0]["requests"][0]["id"] == "r0" and manifest["format"] == "onnx"


def test_the_same_inputs_give_the_same_bytes_and_no_path(given: Path, bundle: Bundle, tmp_path: Path) -> None:
    onnx_steer(given, [bundle], tmp_path / "out")
    onnx_steer(given, [bundle], tmp_path / "again")
    assert contents(tmp_path / "out") == contents(tmp_path / "again")
    for name, content in contents(tmp_path / "out").items():
        for canary in (str(tmp_path), str(Path(api.__file__).parents[2]), sys.prefix):
            assert canary.encode() not in content, name


def test_a_target_that_is_in_the_way(given: Path, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        onnx_steer(given, [bundle], tmp_path / "full")
    assert contents(tmp_path / "full") == {"mine.txt": b"mine"}
    with pytest.raises(InputError, match="or around it"):
        onnx_steer(given, [bundle], given / "out")
    with pytest.raises(InputError, match="remove the directory yourself"):
        onnx_steer(given, [bundle], tmp_path / "full", overwrite=True)
    assert contents(tmp_path / "full") == {"mine.txt": b"mine"}
    onnx_steer(given, [bundle], tmp_path / "out")
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "onnx" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"onnx.mine\.txt"):
        onnx_steer(given, [bundle], tmp_path / "out", overwrite=True)
    (tmp_path / "out" / "onnx" / "mine.txt").unlink()
    onnx_steer(given, [bundle], tmp_path / "out", overwrite=True)
    assert contents(tmp_path / "out") == before


def test_nothing_is_left_behind_when_a_graph_is_refused(given: Path, bundle: Bundle, tmp_path: Path) -> None:
    shutil.copy(given / "onnx" / "vision_encoder.onnx", given / "onnx" / "odd.onnx")
    ir.save(_identity("logits"), given / "onnx" / "odd.onnx")
    with pytest.raises(InputError, match=r"onnx/odd\.onnx: not a decoder: it needs"):
        onnx_steer(given, [bundle], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given"]


def test_a_bundle_of_another_family(given: Path, part: graphs.Part, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="computed on a qwen2_5_vl"):
        onnx_steer(given, [graphs.bundle(part, family="qwen2_5_vl")], tmp_path / "out")


def test_without_the_extra_one_line_says_what_to_install(
    given: Path, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "find_spec", lambda name: None if name == "onnx_ir" else name)
    with pytest.raises(InputError, match=r"pip install 'mllmeraser\[onnx\]'"):
        onnx_steer(given, [bundle], tmp_path / "out")


def test_the_command_needs_no_torch(given: Path, bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(bundle, tmp_path / "b.safetensors")
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\nfrom mllmeraser.cli import main; main()"
    )
    call = ["onnx-steer", given, "--bundle", tmp_path / "b.safetensors", "-o", tmp_path / "out"]
    subprocess.run([sys.executable, "-c", code, *call], check=True, capture_output=True)
    onnx_steer(given, [bundle], tmp_path / "again")
    assert contents(tmp_path / "out") == contents(tmp_path / "again")
