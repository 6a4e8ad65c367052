"""The exported graphs together are the model; the settings are what the clients read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from builders import graphs, tiny
from builders.checkpoints import contents, make_base, make_bundle

import mllmeraser
from mllmeraser.errors import InputError
from mllmeraser.exporter.onnx.directory import steer_directory
from mllmeraser.exporter.onnx.export import export_onnx
from mllmeraser.exporter.onnx.runtime import DecoderSession
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.source import Source
from mllmeraser.steering.in_process import torch_tensors


def run(graph: Path, **feeds: Any) -> Any:
    """The only output of a graph."""
    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    return session.run(None, {name: np.asarray(value) for name, value in feeds.items()})[0]


def greedy(folder: Path, batch: dict[str, Any], vision: dict[str, Any], positions: Any, steps: int) -> list[list[int]]:
    """Greedy tokens with nothing but the graphs, as a client without PyTorch makes them."""
    ids, mask = batch["input_ids"].numpy(), batch["attention_mask"].numpy()
    embeds = run(folder / "onnx" / "embed_tokens.onnx", input_ids=ids).copy()
    features = run(folder / "onnx" / "vision_encoder.onnx", **vision)
    embeds[ids == tiny.IMAGE] = features.reshape(-1, features.shape[-1])
    session, tokens = DecoderSession(folder / graphs.DECODER), []
    cache = session.empty_cache(len(ids))
    for _ in range(steps):
        feeds = {"inputs_embeds": embeds, "attention_mask": mask, "position_ids": positions}
        logits, cache = session.forward(feeds, cache)
        tokens.append(logits[:, -1, : tiny.SPECIAL].argmax(-1))  # the others are suppressed
        embeds = run(folder / "onnx" / "embed_tokens.onnx", input_ids=tokens[-1][:, None])
        mask = np.concatenate([mask, np.ones((len(ids), 1), mask.dtype)], axis=1)
        positions = positions[..., -1:] + 1
    return np.stack(tokens, axis=1).tolist()


@pytest.mark.parametrize("steered", [False, True])
def test_pictures_in_tokens_out(
    exported_bases: dict[str, Path], family: tiny.Family, steered: bool, tmp_path: Path
) -> None:
    base, batch = tiny.model(family), tiny.prompt(family, 7, 9, image=True)
    folder, model = exported_bases[family], base
    if steered:
        part = tiny.steering(base, batch, kind="kernel", shape="step", threshold=0.5, steps=3)
        folder, model = tmp_path / "out", tiny.steered(base, part)
        steer_directory(exported_bases[family], [graphs.bundle(part, family=family)], folder)
    with torch.no_grad():
        expected = model.generate(**batch, max_new_tokens=6, do_sample=False)[:, 9:].tolist()
    vision = {name: batch[name] for name in ("pixel_values", "image_grid_thw") if name in batch}
    positions = graphs.record(base, max_new_tokens=1, **batch)[0].feeds["position_ids"]
    assert greedy(folder, batch, vision, positions, 6) == expected


@pytest.mark.parametrize("pictures", [1, 3])
def test_any_number_of_pictures(exported_bases: dict[str, Path], pictures: int) -> None:
    base, pixels = tiny.model("llava"), torch.randn(pictures, 3, 16, 16)
    with torch.no_grad():
        expected = torch.stack(list(base.model.get_image_features(pixel_values=pixels).pooler_output))
    found = run(exported_bases["llava"] / "onnx" / "vision_encoder.onnx", pixel_values=pixels)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-7)


# Smaller than a window, not a multiple of one, several pictures, two frames.
@pytest.mark.parametrize(
    "grid", [[[1, 4, 4]], [[1, 6, 10]], [[1, 4, 8], [1, 2, 2], [1, 12, 6]], [[2, 6, 4], [1, 4, 4]]]
)
def test_any_size_of_pictures(exported_bases: dict[str, Path], grid: list[list[int]]) -> None:
    base, grids = tiny.model("qwen2_5_vl"), torch.tensor(grid)
    pixels = 30 * torch.randn(int(grids.prod(1).sum()), 96)
    with torch.no_grad():
        expected = base.model.visual(pixels, grid_thw=grids).pooler_output.numpy()
    found = run(
        exported_bases["qwen2_5_vl"] / "onnx" / "vision_encoder.onnx", pixel_values=pixels, image_grid_thw=grids
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * float(np.abs(expected).max()))


def test_the_settings_are_what_the_clients_read(exported_bases: dict[str, Path], family: tiny.Family) -> None:
    folder = exported_bases[family]
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == [tiny.model(family).__class__.__name__]
    assert config["image_token_id"] == tiny.IMAGE and config["model_type"] == family
    assert config["text_config"]["num_hidden_layers"] == tiny.LAYERS
    names = {path.name for path in (folder / "onnx").iterdir()}
    ours = config["transformers.js_config"]
    assert ours["dtype"] == "fp32" and {f"{name}_data" for name in ours["use_external_data_format"]} < names
    assert json.loads((folder / "tokenizer_config.json").read_text())["chat_template"] == "{{ messages }}"
    past = DecoderSession(folder / graphs.DECODER).inputs["past_key_values.0.key"]
    assert past.shape == ["batch_size", 2, "past_sequence_length", 8]


def test_no_path_of_this_machine_is_written(exported_bases: dict[str, Path]) -> None:
    for folder in exported_bases.values():
        for name, content in contents(folder).items():
            for canary in (str(folder.parent), sys.prefix, str(Path(mllmeraser.__file__).parent), "site-packages"):
                assert canary.encode() not in content, name


@pytest.mark.slow
def test_the_whole_export_in_half_precision(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    bundle = make_bundle(base, kind="kernel", shape="step", threshold=0.6, steps=2)
    lines: list[str] = []
    result = export_onnx(Source(base), [bundle], tmp_path / "out", precision="fp16", progress=lines.append)
    assert [line.split()[0] for line in lines] == ["loading", "exporting", "exporting", "exporting", "steering"]
    assert [graph.reply_steps for graph in result.graphs] == [2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "out"]
    decoder = tmp_path / "out" / "onnx" / "decoder_model_merged_fp16.onnx"
    onnx.load(decoder)  # which refuses hard-linked weights
    inputs = DecoderSession(decoder).inputs
    kinds = [inputs[name].type for name in ("inputs_embeds", "past_key_values.0.key", "past_key_values.4.key")]
    assert kinds == ["tensor(float)", "tensor(float16)", "tensor(float16)"]
    steered = tiny.steered(tiny.model("llava"), (bundle.steering(), torch_tensors(bundle)))
    expected = graphs.record(steered, **tiny.prompt("llava", 5, 6, 7, 8, image=True))
    for found, forward in zip(graphs.replay(decoder, expected), expected, strict=True):
        np.testing.assert_allclose(found[:, -1], forward.logits[:, -1], rtol=0, atol=0.1)  # logits to 6, fp16
    assert verify(tmp_path / "out", base).ok
    card = (tmp_path / "out" / "README.md").read_text()
    assert 'license: "llama2"' in card and "r1" in card
    with pytest.raises(InputError, match="not empty"):
        export_onnx(Source(base), [bundle], tmp_path / "out")
    other = make_base(tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    with pytest.raises(InputError, match=r"config\.json sha256"):
        export_onnx(Source(other), [bundle], tmp_path / "more")


def test_a_base_without_a_tokenizer_file(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    (base / "tokenizer.json").unlink()
    lines: list[str] = []
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        export_onnx(Source(base), [make_bundle(base)], tmp_path / "out", progress=lines.append)
    assert lines == [], "noticed only after the long work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]


def test_a_family_without_an_export(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "qwen2_vl")
    with pytest.raises(InputError, match="no ONNX export for model_type qwen2_vl, only for llava, qwen2_5_vl"):
        export_onnx(Source(base), [], tmp_path / "out")
