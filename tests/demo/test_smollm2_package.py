"""What the second model lacks is said in one line, before anything is written."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from builders.command_line import Run

from mllmeraser.demo import train as toy
from mllmeraser.demo.smollm2 import language_model, parts
from mllmeraser.demo.smollm2 import train as second
from mllmeraser.errors import InputError


def nothing(name: str) -> None:
    raise PackageNotFoundError(name)


def test_an_installation_without_the_package_says_how_to_get_it(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language_model, "files", nothing)
    done = run("demo", "--model", "smollm2", tmp_path / "out")
    assert done.code == 2
    assert done.error == f"the language model is not installed: {language_model.INSTALL}"
    assert not list(tmp_path.iterdir())


def test_an_installation_without_the_reader_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_model, "files", lambda name: [Path("a/model.gguf")])
    monkeypatch.setattr(language_model, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^the reader of the language model's file is not installed: pip install"):
        language_model.weights_file()


def test_an_installation_without_the_parts_says_how_to_train_them(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "weights_file", lambda: Path("model.gguf"))
    monkeypatch.setattr(parts, "PARTS", tmp_path / "none")
    done = run("demo", "--model", "smollm2", tmp_path / "out")
    assert done.code == 1
    assert done.error.endswith("train them: python -m mllmeraser.demo.train --model smollm2")
    assert not list(tmp_path.iterdir())


def test_the_training_without_the_package_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language_model, "files", nothing)
    with pytest.raises(SystemExit) as stopped:
        toy.main(["--model", "smollm2", "--out", str(tmp_path / "parts")])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(language_model.INSTALL)
    assert not list(tmp_path.iterdir())


def test_the_trainer_of_the_toy_hands_over(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr(second, "main", given.append)
    toy.main(["--out", "parts", "--model", "smollm2", "--smoke"])
    assert given == [["--out", "parts", "--smoke"]]
