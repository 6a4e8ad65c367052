"""What wins over what in a recipe, and the one line that says what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mllmeraser.errors import InputError
from mllmeraser.steering.forms import GateShape, NullSpace
from mllmeraser.steering.recipe import Recipe, make_recipe


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(*args: object) -> str:
    """The message of a recipe that cannot be made; it is one line."""
    with pytest.raises(InputError) as caught:
        make_recipe(*args)  # type: ignore[arg-type]  # wrong on purpose
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_option_wins_over_the_file_the_file_over_the_preset_the_preset_over_the_default(tmp_path: Path) -> None:
    file = written(tmp_path, 'preset = "paper"\nridge = 0.7\nstrength = 2\n')
    recipe = make_recipe("llava", {"strength": "0.5"}, file)
    assert recipe.strength == 0.5  # option, over the file's 2
    assert recipe.ridge == 0.7  # file, over the paper's 0.1
    assert recipe.gate == "linear"  # paper, over the default kernel
    assert recipe.landmarks == Recipe().landmarks  # default
    assert make_recipe("llava", {}, file).strength == 2.0


def test_an_option_wins_over_the_preset_given_beside_it() -> None:
    recipe = make_recipe("llava", {"preset": "paper", "gate": "kernel", "layers": "2,1"})
    assert (recipe.gate, recipe.layers, recipe.reply_steps) == ("kernel", (1, 2), 1)


@pytest.mark.parametrize(
    ("family", "ratio", "ridge"), [("llava", 0.3, 0.1), ("qwen2_5_vl", 0.4, 1.0), ("llava_next", 0.3, 0.1)]
)
def test_the_preset_is_the_papers_for_each_family(family: str, ratio: float, ridge: float) -> None:
    papers = {
        "layers": "all",
        "gate_scope": "prompt",
        "edit": "add",
        "augment": False,
        "direction": "harmful",
        "reply_steps": 1,
        "prompt_positions": "all",
        "gate": "linear",
        "gate_layer": "own",
        "gate_shape": GateShape("identity"),
        "null_space": NullSpace("ratio", ratio),
        "ridge": ridge,
        "ridge_scale": "absolute",
    }
    assert make_recipe(family, {"preset": "paper"}).model_dump(include=set(papers)) == papers


def test_a_file_holds_the_options_as_they_are_written_or_as_toml_has_them(tmp_path: Path) -> None:
    file = written(
        tmp_path, 'layers = [7, 3]\ngate_layer = 2\ngate_shape = "step:0.7"\nreply_steps = 6\nstrength = 1\n'
    )
    recipe = make_recipe("llava", {}, file)
    assert (recipe.layers, recipe.gate_layer, recipe.gate_shape) == ((3, 7), 2, GateShape("step", 0.7))
    assert (recipe.reply_steps, recipe.strength) == (6, 1.0)


def test_paths_in_a_file_are_relative_to_it_and_paths_in_options_to_the_caller(tmp_path: Path) -> None:
    file = written(tmp_path, 'recall = "r.jsonl"\nerasure = "/data/e.jsonl"\n')
    recipe = make_recipe("llava", {}, file)
    assert (recipe.recall, recipe.erasure) == (tmp_path / "r.jsonl", Path("/data/e.jsonl"))
    assert make_recipe("llava", {"recall": Path("mine.jsonl")}, file).recall == Path("mine.jsonl")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layers", "3-7"),
        ("direction", "random"),
        ("reply_steps", "0"),
        ("reply_steps", "1.5"),
        ("prompt_positions", "first"),
        ("gate", "cubic"),
        ("gate_layer", "-1"),
        ("gate_shape", "step:high"),
        ("null_space", "ratio:3"),
        ("ridge", "-1"),
        ("ridge", "nan"),
        ("ridge_scale", "log"),
        ("landmarks", "1"),
        ("bandwidth", "0"),
        ("bandwidth", "nan"),
        ("strength", "inf"),
        ("strength", "strong"),
        ("projection", "0"),
        ("projection", "few"),
        ("until", "tomorrow"),
        ("calibration_share", "0.9"),
        ("preset", "book"),
    ],
)
def test_a_bad_value_is_one_line_naming_the_option_or_the_file_and_key(tmp_path: Path, key: str, value: str) -> None:
    assert refusal("llava", {key: value}).startswith(f"--{key.replace('_', '-')}: ")
    file = written(tmp_path, f'{key} = "{value}"\n')
    assert refusal("llava", {}, file).startswith(f"{file}: {key}: ")


def test_a_value_given_on_the_command_line_is_blamed_there_whatever_the_file_says(tmp_path: Path) -> None:
    file = written(tmp_path, "ridge = 0.5\n")
    assert refusal("llava", {"ridge": "-1"}, file).startswith("--ridge: ")


def test_an_unknown_key_is_an_error(tmp_path: Path) -> None:
    file = written(tmp_path, "rigde = 0.5\n")
    assert refusal("llava", {}, file).startswith(f"{file}: rigde: ")


@pytest.mark.parametrize("content", [b"ridge = \n", b"\xff\xfe", b"[section\n"], ids=["half", "bytes", "bracket"])
def test_what_is_no_toml_is_an_error_naming_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(content)
    assert refusal("llava", {}, path).startswith(f"{path}: not valid TOML (")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    assert refusal("llava", {}, tmp_path / "none.toml").startswith(f"{tmp_path / 'none.toml'}: no such file")


@pytest.mark.parametrize("side", ["recall", "erasure"])
def test_recall_and_erasure_are_given_together(side: str) -> None:
    assert refusal("llava", {side: Path("x")}) == "give recall and erasure records together, or neither"


def test_without_calibration_what_has_no_usual_value_must_be_given() -> None:
    message = refusal("llava", {"calibration_share": "0"})
    assert message.startswith("--calibration-share 0 calibrates nothing")
    assert message.endswith("give --layers, --gate-shape a value")
    added = refusal("llava", {"calibration_share": "0", "gate_scope": "prompt", "edit": "add"})
    assert added.endswith("give --layers, --gate-shape, --strength a value")
    given = {"calibration_share": "0", "layers": "2", "gate_shape": "step:0.5"}
    assert make_recipe("llava", given).left_open == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sequential": True}, "sequential fits a gate on states at the last prompt token: give gate-scope prompt"),
        ({"gate_shape": "clip"}, "gate-scope conversation seals a row or does not: give gate-shape step, or"),
        ({"gate_scope": "prompt", "gate_fit": "positions"}, "gate-fit positions needs gate-scope conversation"),
        (
            {"gate_scope": "prompt", "until": "turn"},
            "until turn needs gate-scope conversation; the other scopes keep no",
        ),
        ({"prompt_positions": "last"}, "edit seal sets every column: leave out prompt-positions"),
    ],
)
def test_choices_that_exclude_each_other_are_named(given: dict[str, Any], message: str) -> None:
    assert refusal("llava", given).startswith(message)


def test_the_default_recognises_the_conversation_and_seals_it() -> None:
    recipe = make_recipe("llava", {})
    assert (recipe.gate_scope, recipe.edit, recipe.augment) == ("conversation", "seal", True)
