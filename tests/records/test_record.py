"""Reading records: what is accepted, and the one line that names file, line and key of what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders import talker

from mllmeraser.errors import InputError
from mllmeraser.records.read import read_records
from mllmeraser.records.record import by_subject, refuse_overlap, subjects

GOOD = {"subject": "017", "question": "Where?", "answer": "Graz", "task": "generation"}


def written(folder: Path, *lines: str) -> Path:
    path = folder / "records.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    """The message about a file that cannot be read; it is one line."""
    with pytest.raises(InputError) as caught:
        read_records(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_record_is_read_with_its_picture_found_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    talker.picture(1).save(tmp_path / "images" / "a.png")
    (record,) = read_records(written(tmp_path, json.dumps({**GOOD, "image": "images/a.png", "more": [1]})))
    assert record.image == (tmp_path / "images" / "a.png").resolve()
    assert (record.subject, record.modality, record.accepted) == ("017", "image_text", ("Graz",))


def test_empty_lines_a_byte_order_mark_and_windows_line_ends_are_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    line = json.dumps(GOOD).encode()
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n" + line)
    assert len(read_records(path)) == 2


def test_a_line_ends_at_a_line_feed_only(tmp_path: Path) -> None:
    """JSON allows the line separators of Unicode inside a string."""
    answer = "one\u2028two\u0085three"
    (record,) = read_records(written(tmp_path, json.dumps({**GOOD, "answer": answer}, ensure_ascii=False)))
    assert record.answer == answer


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"subject": ""}, "subject"),
        ({"subject": 17}, "subject"),
        ({"question": None}, "question"),
        ({"answer": ""}, "answer"),
        ({"task": "poem"}, "task"),
        ({"prompt": ""}, "prompt"),
        ({"match": 3}, "match"),
        ({"options": ["a"]}, "options"),
        ({"task": "classification"}, "options"),
        ({"task": "classification", "options": {"A": "Lyon"}}, "answer"),
        ({"image": "none.png"}, "image"),
    ],
)
def test_a_bad_value_names_file_line_and_key(tmp_path: Path, change: dict[str, object], key: str) -> None:
    path = written(tmp_path, json.dumps(GOOD), "", json.dumps({**GOOD, **change}))
    assert refusal(path).startswith(f"{path}, line 3: {key}: ")


@pytest.mark.parametrize("key", ["subject", "question", "answer", "task"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    path = written(tmp_path, json.dumps({name: value for name, value in GOOD.items() if name != key}))
    assert refusal(path) == f"{path}, line 1: {key}: Field required"


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"subject": "1"', "subject,question", "null"])
def test_a_line_that_is_no_object_names_file_and_line(tmp_path: Path, line: str) -> None:
    path = written(tmp_path, json.dumps(GOOD), line)
    assert refusal(path).startswith(f"{path}, line 2: ")


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf\n"], ids=["empty", "blank", "mark"])
def test_a_file_without_a_record_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path}: holds no record;")


def test_a_file_that_is_missing_a_folder_or_not_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe{")
    assert refusal(tmp_path / "none.jsonl").startswith(f"{tmp_path / 'none.jsonl'}: no such file;")
    assert refusal(tmp_path).startswith(f"{tmp_path}: no parquet file;")
    assert refusal(tmp_path / "bytes.jsonl").startswith(f"{tmp_path / 'bytes.jsonl'}: not UTF-8 text")


def test_nobody_is_forgotten_and_retained_at_once(tmp_path: Path) -> None:
    first = read_records(talker.write_people(tmp_path / "forget.jsonl", range(3)))
    second = read_records(talker.write_people(tmp_path / "retain.jsonl", range(2, 5)))
    refuse_overlap(first[:8], second)
    with pytest.raises(InputError, match=r"^1 subject\(s\) stand in both .* 'subject-2': remove their records"):
        refuse_overlap(first, second)


def test_subjects_are_grouped_in_the_order_they_come(tmp_path: Path) -> None:
    records = read_records(talker.write_people(tmp_path / "people.jsonl", range(3)))
    mixed = [records[8], *records[:8], *records[9:]]
    assert subjects(mixed) == ["subject-2", "subject-0", "subject-1"]
    assert [(name, len(group)) for name, group in by_subject(mixed)] == [(n, 4) for n in subjects(mixed)]
