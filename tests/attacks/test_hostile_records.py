"""Records whose picture is no path: refused in one line, which quotes no more of it than its start."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path

import pytest
from builders import talker
from builders.command_line import Run

from mllmeraser.errors import InputError
from mllmeraser.records.read import read_records


def picture() -> str:
    file = BytesIO()
    talker.picture(1).resize((400, 400)).save(file, "BMP")
    return base64.b64encode(file.getvalue()).decode()


BASE64 = picture()
NO_PATHS: dict[str, tuple[object, str]] = {
    "base64": (BASE64, f"is too long for a path ({len(BASE64):,} characters); if it is the picture in base64, save"),
    "base64 with slashes": ("/9j/" * 3000, "is too long for a path"),
    "base64 for URLs": (BASE64.replace("/", "_"), "is too long for a path"),
    "a data URL": (f"data:image/bmp;base64,{BASE64}", "is no path; save the picture beside the file"),
    "a short data URL": ("data:,a", "is no path; save the picture beside the file"),
    "http": ("https://example.com/a.jpg", "is no path; save the picture beside the file"),
    "a file URL": ("file:///tmp/a.png", "is no path; save the picture beside the file"),
    "s3": ("s3://bucket/a.png", "is no path; save the picture beside the file"),
    "a path of Windows": ("images\\a.png", "does not exist beside the file; write folders with slashes, a/b.png"),
    "a drive of Windows": ("C:\\images\\a.png", "does not exist beside the file; write folders with slashes, a/b.png"),
    "a list": (["a.png", "b.png"], "a list, but a record shows one picture; give each picture a record of its own"),
    "an object": ({"bytes": BASE64}, "neither a path nor null"),
    "a number": (7, "neither a path nor null"),
    "nothing": ("", "empty; give a path, or null"),
    "a folder": (".", "does not exist beside the file"),
    "a name with a null": ("a\0.png", "does not exist beside the file"),
    "a name that moves the cursor": ("\x1b[2Jgone.png", "\\x1b[2Jgone.png does not exist"),
    "a very deep path": ("a/" * 5000, "is too long for a path"),
}


@pytest.mark.parametrize("what", NO_PATHS)
def test_a_picture_that_is_no_path_is_one_short_line(tmp_path: Path, what: str) -> None:
    image, said = NO_PATHS[what]
    path = tmp_path / "records.jsonl"
    record = {"subject": "a", "question": "Who?", "answer": "baker", "task": "generation", "image": image}
    path.write_text(json.dumps(record))
    with pytest.raises(InputError) as caught:
        read_records(path)
    text = str(caught.value)
    assert text.startswith(f"{path}, line 1: image: ")
    assert said in text
    assert text.isprintable()
    assert len(text) < 400


def test_a_name_with_a_colon_is_a_path(tmp_path: Path) -> None:
    talker.picture(1).save(tmp_path / "photo:1.png")
    record = {"subject": "a", "question": "Who?", "answer": "baker", "task": "generation", "image": "photo:1.png"}
    (tmp_path / "records.jsonl").write_text(json.dumps(record))
    (read,) = read_records(tmp_path / "records.jsonl")
    assert read.image == (tmp_path / "photo:1.png").resolve()


def test_no_command_prints_the_picture(tmp_path: Path, world: Path, run: Run) -> None:
    forget = tmp_path / "forget.jsonl"
    record = {"subject": "a", "question": "Who?", "answer": "baker", "task": "generation", "image": BASE64}
    forget.write_text(json.dumps(record))
    for command in (
        ["compute", world / "base", "--forget", forget, "--retain", world / "retain.jsonl", "-o", tmp_path / "b"],
        ["evaluate", world / "base", "--data", forget],
        ["records", forget],
    ):
        result = run(*command)
        assert result.code == 2
        assert BASE64[:80] not in result.error
        assert len(result.error) < 400
