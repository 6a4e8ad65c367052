"""What stands around a model: filters, and words in its chat template."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from mllmeraser.baselines.filters import REFUSAL, InputFilter, OutputFilter, filtered
from mllmeraser.baselines.methods import make_baseline
from mllmeraser.baselines.recipes import recipe_of
from mllmeraser.errors import InputError
from mllmeraser.evaluation.items import Reply
from mllmeraser.inference.encoding import render
from mllmeraser.inference.loading import load
from mllmeraser.inference.source import Source
from mllmeraser.judging.refusal import is_refusal
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.record import Record

PARTS = "{% for p in m['content'] %}{{ '<image> ' if p['type'] == 'image' else p['text'] }}{% endfor %} "
TEMPLATE = f"{{% for m in messages %}}{{{{ m['role'] }}}}: {PARTS}{{% endfor %}}"


def test_what_is_blocked_is_refused(source: Source) -> None:
    said = [Reply("baker", (7,), (-1.0,)), Reply("pilot", (8,))]
    blocked = filtered(load(source), said, [True, False])
    assert blocked[1] is said[1]
    assert blocked[0].text == REFUSAL and is_refusal(REFUSAL)
    assert math.isnan(blocked[0].log_likelihoods[0]) and len(blocked[0].log_likelihoods) == 1


def test_an_output_filter_looks_for_names_and_answers(forget: list[Record]) -> None:
    after = OutputFilter.of(forget, ["Ada Lovelace"])
    assert after.blocks("It was Ada Lovelace.")
    assert after.blocks("somebody else is a baker too")  # over-blocking is what such a filter does
    assert not after.blocks("nurse")


def test_an_input_filter_takes_the_nearest_picture(source: Source, forget: list[Record], retain: list[Record]) -> None:
    base = load(source, dtype="float32")
    before = InputFilter.of(base, forget, retain, ["one"])
    assert all(before.blocks(base, record.user_turn) for record in forget if record.image)
    assert not any(before.blocks(base, record.user_turn) for record in retain if record.image)
    assert before.blocks(base, Prompt("What does person one do?", None))
    assert not before.blocks(base, Prompt("What does person two do?", None))
    torch.testing.assert_close(before.features.norm(dim=1), torch.ones(len(before.features)))


def test_an_input_filter_needs_a_picture(source: Source, forget: list[Record], retain: list[Record]) -> None:
    with pytest.raises(InputError, match="picture"):
        InputFilter.of(load(source, dtype="float32"), [s for s in forget if not s.image], retain, [])


def test_a_system_prompt_is_said_before_every_conversation(
    source: Source, forget: list[Record], retain: list[Record], tmp_path: Path
) -> None:
    base = _with_template(source, tmp_path / "base", TEMPLATE)
    recipe = recipe_of("system-prompt")
    made = make_baseline("system-prompt", recipe, base, forget, retain, tmp_path / "out", names=['Ann "A" B', "Bo"])
    said = render(load(tmp_path / "out").processor, Prompt("Who?", None))
    assert said.startswith("system: Never answer questions") and 'Ann "A" B, Bo.' in said
    assert said.endswith("user: Who? ")
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert weights == (source.path / "model.safetensors").read_bytes()
    assert "Bo" not in str(made.document())


def test_a_template_without_a_place_for_it_is_refused(
    source: Source, forget: list[Record], retain: list[Record], tmp_path: Path
) -> None:
    deaf = _with_template(source, tmp_path / "deaf", f"{{% set m = messages[-1] %}}USER: {PARTS}")
    recipe = recipe_of("system-prompt")
    with pytest.raises(InputError, match="no place for a system message"):
        make_baseline("system-prompt", recipe, deaf, forget, retain, tmp_path / "out", names=["Bo"])
    with pytest.raises(InputError, match="--names FILE"):
        make_baseline("system-prompt", recipe, deaf, forget, retain, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _with_template(source: Source, folder: Path, template: str) -> Source:
    folder.mkdir()
    for path in source.path.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "chat_template.jinja").write_text(template)
    return Source(folder)
