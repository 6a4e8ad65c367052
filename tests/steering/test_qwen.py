"""Qwen2.5-VL from end to end on random weights of the true architecture: what needs no knowledge.

Dynamic resolution, pictures of several sizes in a batch, positions in three dimensions, tied and untied embeddings.
Random weights refuse nothing, so the refusals are given; whether people are forgotten cannot be seen on them.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from builders import plain_states, qwen_talker, talker
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from mllmeraser.exporter.directory import export
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.activations import last_prompt_states, mean_reply_states
from mllmeraser.inference.encoding import append, encode
from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.inference.replies import greedy_reply_ids, option_log_likelihoods
from mllmeraser.inference.source import Source
from mllmeraser.modeling_patches.modeling_mllmeraser import steered_class
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record
from mllmeraser.steering.compute import Computation, compute
from mllmeraser.steering.in_process import torch_tensors
from mllmeraser.steering.recipe import make_recipe

REPLIES = [torch.tensor(ids) for ids in ([5, 6, 7, 8], [9], [10, 11], [12, 13, 14], [15, 16, 17], [20], [21, 22], [23])]
CLOSE = {"rtol": 1e-4, "atol": 2e-5}  # fp32: another batch shape sums in another order


@dataclass(frozen=True)
class Made:
    """A base, its records, and the bundle that follows from them."""

    folder: Path
    checkpoint: Checkpoint
    forget: list[Record]
    computed: Computation


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("qwen")
    checkpoint = load(qwen_talker.make_base(folder / "base", tied=request.param))
    forget = read_records(qwen_talker.write_people(folder / "forget.jsonl", range(3)))
    retain = read_records(qwen_talker.write_people(folder / "retain.jsonl", range(3, 8)))
    talker.write_refusals(folder)
    given = {"recall": folder / "recall.jsonl", "erasure": folder / "erasure.jsonl", "strength": "1"}
    recipe = make_recipe(
        "qwen2_5_vl",
        {**given, **talker.ADDED, "layers": "1,2", "gate_layer": "1", "gate_shape": "step:0.1", "null_space": "soft:1"},
    )
    return Made(folder, checkpoint, forget, compute(checkpoint, forget, retain, recipe, seed=2))


@pytest.fixture
def base(made: Made) -> Path:
    return made.folder / "base"


def test_it_is_a_qwen_of_the_true_architecture_and_of_the_files_that_are_published(made: Made, base: Path) -> None:
    assert type(made.checkpoint.model) is Qwen2_5_VLForConditionalGeneration
    assert not (base / "processor_config.json").exists()
    config = json.loads((base / "config.json").read_text())
    text = made.checkpoint.model.config.get_text_config()
    assert text.rope_parameters["mrope_section"] == [1, 1, 2]
    weights = made.checkpoint.model.get_output_embeddings().weight, made.checkpoint.model.get_input_embeddings().weight
    assert (weights[0] is weights[1]) is bool(config.get("tie_word_embeddings", text.tie_word_embeddings))


@pytest.mark.parametrize("batch_size", [3, 8])
def test_states_in_a_batch_of_many_sizes_are_those_of_each_prompt_alone(
    made: Made, base: Path, batch_size: int
) -> None:
    prompts, steps = qwen_talker.prompts(), 4
    inputs = encode(made.checkpoint, [prompt for prompt in prompts if prompt.image], "right")
    assert len(inputs["image_grid_thw"].unique(dim=0)) == 6  # all sizes differ
    states = last_prompt_states(replace(made.checkpoint, batch_size=batch_size), prompts, [0, 2])
    means, counts = mean_reply_states(replace(made.checkpoint, batch_size=batch_size), prompts, REPLIES, [0, 2], steps)
    assert counts.tolist() == [8, 5, 3, 1]
    for layer in (0, 2):
        for row, prompt in enumerate(prompts):
            alone, length = plain_states.block_states(_fresh(base), prompt)
            torch.testing.assert_close(states[layer][row], alone[layer][length - 1], **CLOSE)
        for k in range(steps):
            expected = plain_states.mean_along_replies(_fresh(base), prompts, REPLIES, layer, k)
            torch.testing.assert_close(means[layer][k], expected, **CLOSE)


_loaded = functools.cache(load)


def _fresh(base: Path) -> Checkpoint:
    """A model that has seen nothing yet: Qwen remembers an offset of positions from its last picture."""
    checkpoint = _loaded(base)
    checkpoint.model.model.rope_deltas = None
    return checkpoint


def test_a_reply_that_is_appended_goes_on_in_the_positions_after_the_picture(made: Made) -> None:
    """A picture of r × c tokens takes max(r, c) positions; what follows counts on from there, padding or not."""
    asked = [prompt for prompt in qwen_talker.prompts() if prompt.image]
    inputs, starts = append(made.checkpoint, encode(made.checkpoint, asked, "right"), REPLIES[: len(asked)])
    keys = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
    positions, _ = made.checkpoint.model.model.get_rope_index(**{key: inputs[key] for key in keys})
    for row, reply in enumerate(REPLIES[: len(asked)]):
        _, down, across = (inputs["image_grid_thw"][row] // 2).tolist()
        tokens = int(inputs["mm_token_type_ids"][row].sum())
        assert tokens == down * across
        first = int(starts[row]) - tokens + max(down, across)
        for k in range(len(reply)):
            assert positions[:, row, int(starts[row]) + k].tolist() == [first + k] * 3


def test_replies_and_scores_in_a_batch_are_those_of_each_prompt_alone(made: Made, base: Path) -> None:
    prompts = qwen_talker.prompts()
    options = [["baker", "pilot nurse"]] * len(prompts)
    said = greedy_reply_ids(made.checkpoint, prompts, max_new_tokens=8)
    scores = option_log_likelihoods(made.checkpoint, prompts, options)
    for row, prompt in enumerate(prompts):
        assert torch.equal(greedy_reply_ids(_fresh(base), [prompt], max_new_tokens=8)[0], said[row])
        alone = option_log_likelihoods(_fresh(base), [prompt], options[:1])[0]
        assert scores[row] == pytest.approx(alone, abs=1e-4)


def test_a_question_in_words_after_one_about_a_picture_is_answered_as_if_first(made: Made, base: Path) -> None:
    words = Prompt("What is the job of person one?", None)
    alone = greedy_reply_ids(_fresh(base), [words], max_new_tokens=8)[0]
    for batch in ([qwen_talker.prompts()[3]], qwen_talker.prompts()[3:6]):
        greedy_reply_ids(made.checkpoint, batch, max_new_tokens=3)
        assert torch.equal(greedy_reply_ids(made.checkpoint, [words], max_new_tokens=8)[0], alone)
        several = greedy_reply_ids(made.checkpoint, [words, words], max_new_tokens=8)
        assert all(torch.equal(reply, alone) for reply in several)


def test_the_bundle_says_what_it_is_of(made: Made) -> None:
    meta = made.computed.bundle.metadata
    assert (meta.base.model_type, meta.base.architecture) == ("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration")
    assert (meta.layers, meta.gate_layer, meta.reply_steps) == ([1, 2], 1, 7)


@pytest.fixture(scope="module")
def exported(made: Made) -> Path:
    export(Source(made.folder / "base"), [made.computed.bundle], made.folder / "out")
    return made.folder / "out"


def test_the_export_keeps_every_promise(made: Made, exported: Path) -> None:
    checked = verify(exported, made.folder / "base")
    assert [check for check in checked.checks if not check.ok] == []


SCRIPT = """
import sys, torch
from transformers import AutoModelForImageTextToText
directory, inputs, results = sys.argv[1:]
found = {}
for name, options in {"on": {}, "off": {"steering_enabled": False}}.items():
    model = AutoModelForImageTextToText.from_pretrained(directory, trust_remote_code=True, **options).eval()
    batch = torch.load(inputs)
    with torch.no_grad():
        found[name] = model(**batch).logits
    found[f"{name} said"] = model.generate(**batch, max_new_tokens=6, do_sample=False)[:, batch["input_ids"].shape[1]:]
assert "mllmeraser" not in sys.modules
torch.save(found, results)
"""


# A fresh process takes seconds, so each of these two is shown on one of the bases.


@pytest.mark.slow
@pytest.mark.parametrize("made", [True], ids=["tied"], indirect=True)
def test_in_a_fresh_process_it_steers_as_here(made: Made, exported: Path, tmp_path: Path) -> None:
    """Loaded with transformers alone; pictures of three sizes in one batch, padded on the left."""
    prompts = [record.user_turn for record in made.forget if record.image]
    inputs = encode(made.checkpoint, prompts, "left")
    torch.save(inputs, tmp_path / "inputs")
    subprocess.run(
        [sys.executable, "-c", SCRIPT, exported, tmp_path / "inputs", tmp_path / "results"],
        check=True,
        cwd=tmp_path,
        env={"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": ""},
        capture_output=True,
    )
    found: dict[str, Tensor] = torch.load(tmp_path / "results", weights_only=True)
    bundle = made.computed.bundle
    steered = steered_class("qwen2_5_vl").from_base(made.checkpoint.model, bundle.steering(), torch_tensors(bundle))
    for name, model in (("on", steered), ("off", made.checkpoint.model)):
        model.model.rope_deltas = None
        with torch.no_grad():
            torch.testing.assert_close(found[name], model(**inputs).logits, rtol=1e-4, atol=1e-4)
        said = model.generate(**inputs, max_new_tokens=6, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        assert torch.equal(found[f"{name} said"], said)
    assert not torch.equal(found["on"], found["off"])


@pytest.mark.slow
@pytest.mark.parametrize("made", [False], ids=["untied"], indirect=True)
def test_it_is_evaluated_from_the_command_line(made: Made, exported: Path, tmp_path: Path) -> None:
    arguments = [f"base={made.folder / 'base'}", f"steered={exported}", "--data", made.folder / "forget.jsonl"]
    done = subprocess.run(
        [sys.executable, "-m", "mllmeraser.cli", "evaluate", *arguments, "-o", tmp_path / "results.json", "--json"],
        capture_output=True,
        text=True,
        env={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert {(row["model"], row["modality"]) for row in rows} == {
        (model, modality) for model in ("base", "steered") for modality in ("image_text", "text")
    }
    assert all(row["identical_to_base"] == 1 for row in rows if row["model"] == "base")
    moved = min(row["identical_to_base"] for row in rows if row["model"] == "steered")
    assert moved < 1
