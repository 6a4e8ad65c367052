"""Requests come in, are decided, put off, withdrawn and erased; what is due stands first; a table is all or nothing."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path

import pytest
from builders.command_line import Run, document
from builders.requests import NAMES, claim, ledger_of, person, record
from builders.talker import write_records

from mllmeraser.errors import InputError, VerificationError
from mllmeraser.removals.chain import read_chain
from mllmeraser.removals.claims.bank import general
from mllmeraser.removals.ledger import Ledger
from mllmeraser.removals.state import later

DAY = datetime.date


def hostile(folder: Path) -> Path:
    """General questions, as if they were somebody's."""
    rows = [record("x", each.question, each.answer) for each in general()[:40]]
    return write_records(folder / "hostile.jsonl", rows)


@pytest.mark.parametrize(
    ("day", "months", "then"),
    [
        (DAY(2026, 1, 31), 1, DAY(2026, 2, 28)),
        (DAY(2024, 1, 31), 1, DAY(2024, 2, 29)),
        (DAY(2026, 3, 31), 1, DAY(2026, 4, 30)),
        (DAY(2026, 12, 15), 1, DAY(2027, 1, 15)),
        (DAY(2026, 11, 30), 3, DAY(2027, 2, 28)),
    ],
)
def test_an_answer_is_due_on_the_same_day_of_a_later_month(day: DAY, months: int, then: DAY) -> None:
    assert later(day, months) == then


def test_what_is_due_first_stands_first_and_what_is_answered_last(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "requests")
    today = datetime.date.today()
    for number, ago in enumerate((3, 90, 20)):
        ledger.add(person(tmp_path, number), today - datetime.timedelta(days=ago))
    first, second, third = ledger.state().requests
    rows = ledger.listed().document()["requests"]
    assert [row["id"] for row in rows] == [second, third, first]
    assert [row["overdue"] for row in rows] == [True, False, False]
    assert "OVERDUE" in ledger.listed().lines()[1]
    ledger.answered(second)
    rows = ledger.listed().document()["requests"]
    assert [row["id"] for row in rows] == [third, first, second]
    assert (rows[2]["days_left"], rows[2]["overdue"]) == (None, False)


def test_a_request_keeps_a_copy_of_its_records_and_pictures(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "requests")
    source = person(tmp_path, 0, image=True)
    ledger.add(source, "2026-01-05", name=NAMES[0])
    (request,) = ledger.state().requests.values()
    assert (request.received.records, request.received.pictures) == (5, 1)
    for path in (source, tmp_path / "ada.png"):
        path.unlink()
    assert len(ledger.folder.read(request.id, request.received.commitment)) == 5
    assert ledger.verify().ok
    kept = ledger.folder.records(request.id)
    kept.write_text(kept.read_text().replace("Graz", "Linz"))
    with pytest.raises(VerificationError, match="not the records that were received"):
        ledger.folder.read(request.id, request.received.commitment)
    assert [check.name for check in ledger.verify().checks if not check.ok] == ["records"]


def test_a_claim_that_found_nothing_is_closed_and_one_that_did_waits(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "requests")
    ledger.add(claim(tmp_path / "nobody", False), "2026-01-05")
    ledger.add(claim(tmp_path / "known", True, person(tmp_path, 0)), "2026-01-05")
    nobody, known = ledger.state().requests.values()
    assert (nobody.status, nobody.next) == ("nothing-known", "letter")
    assert (known.status, known.next) == ("waiting", "compute")
    assert known.received.claim is not None and known.received.claim.evidence == 3
    assert ledger.verify().ok


def test_a_hostile_request_is_recorded_and_refused_with_the_figure(run: Run, tmp_path: Path) -> None:
    call = ["requests", "add", hostile(tmp_path), "--received", "2026-01-05", "--ledger", tmp_path / "requests"]
    refused = run(*call)
    assert refused.code == 4
    assert "15.7% of 254 questions of general knowledge" in refused.stdout
    (request,) = Ledger(tmp_path / "requests").state().requests.values()
    assert (request.status, request.next) == ("refused", "letter")
    accepted = run(*call, "--anyway", "reviewed", "--json")
    assert accepted.code == 0
    (request,) = Ledger(tmp_path / "requests").state().requests.values()  # the same request, decided anew
    assert request.status == "waiting"
    assert request.decided is not None and request.decided.override == "reviewed"


def test_the_same_records_are_one_request_until_it_is_withdrawn(tmp_path: Path) -> None:
    ledger, ids = ledger_of(tmp_path, [0])
    again = person(tmp_path, 0).rename(tmp_path / "under another name.jsonl")
    with pytest.raises(InputError, match=f"the same records are request {ids[0]} already"):
        ledger.add(again, "2026-01-20")
    ledger.withdraw(ids[0], "person")
    ledger.add(again, "2026-01-20")
    assert len(ledger.state().requests) == 2


# --------------------------------------------------------------------------------------------------------------- tables


def table(folder: Path, *lines: str, header: str = "received,records,name") -> Path:
    path = folder / "letters.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8-sig")
    return path


def test_a_table_of_requests_comes_in_whole_and_only_once(run: Run, tmp_path: Path) -> None:
    for number in range(4):
        person(tmp_path, number)
    claim(tmp_path / "nobody", False)
    hostile(tmp_path)
    lines = ["2026-01-05,ada.jsonl,,Ada Quillfeather,17", "", "2026-01-06,,nobody,,", "2026-01-07,hostile.jsonl,,,"]
    call = ["requests", "add", "--csv", table(tmp_path, *lines, header="Received, records,claim,name,reference")]
    told = run(*call, "--ledger", tmp_path / "requests", "--json")
    assert told.code == 4  # the hostile one
    ledger = Ledger(tmp_path / "requests")
    assert [request.status for request in ledger.state().requests.values()] == ["waiting", "nothing-known", "refused"]
    again = run(*call, "--ledger", tmp_path / "requests", "--json")
    assert (again.code, document(again)["added"], len(document(again)["there"])) == (0, [], 3)  # type: ignore[arg-type]
    first = next(iter(ledger.state().requests))
    key = ledger.folder.key(first)
    assert key is not None and (key.name, key.reference) == ("Ada Quillfeather", "17")


@pytest.mark.parametrize(
    ("lines", "header", "said"),
    [
        (["2026-01-05,ada.jsonl,", "2026-13-05,bo.jsonl,"], None, "line 3: received: '2026-13-05' is not a date"),
        (["2026-01-05,ada.jsonl,", "2999-01-05,bo.jsonl,"], None, "line 3: received: 2999-01-05 is in the future"),
        (["2026-01-05,ada.jsonl,", "2026-01-05,nobody.jsonl,"], None, "line 3: "),
        (["2026-01-05,ada.jsonl"], None, "line 2: does not have 3 fields"),
        (["2026-01-05,ada.jsonl,a,b"], None, "line 2: does not have 3 fields"),
        (["2026-01-05,,"], None, "line 2: give a path in one of the columns records and claim"),
        (['2026-01-05,"ada.jsonl,'], None, "line 2: unexpected end of data"),
        ([], None, "holds no request"),
        (["x"], "day,file", "names no columns received and records"),
        (["x"], "received,records,surname", "column 'surname' is not one of received, records"),
    ],
)
def test_a_bad_line_is_one_line_that_names_it_and_nothing_is_written(
    run: Run, tmp_path: Path, lines: list[str], header: str | None, said: str
) -> None:
    person(tmp_path, 0)
    person(tmp_path, 1)
    path = table(tmp_path, *lines) if header is None else table(tmp_path, *lines, header=header)
    result = run("requests", "add", "--csv", path, "--ledger", tmp_path / "requests")
    assert result.code == 2
    assert said in result.error
    assert not (tmp_path / "requests").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add"], "give CLAIM or RECORDS with --received DATE"),
        (["add", "ada.jsonl"], "give CLAIM or RECORDS with --received DATE"),
        (["add", "--csv", "x.csv", "--name", "Ada"], "in a table they are columns"),
        (["list"], "no ledger here; begin one with"),
        (["show", "r-0123456789"], "no ledger here"),
        (["withdraw", "r-0123456789", "--reason", "person"], "no ledger here"),
    ],
)
def test_a_wrong_call_is_one_line(run: Run, tmp_path: Path, arguments: list[str], said: str) -> None:
    result = run("requests", *arguments, "--ledger", tmp_path / "requests")
    assert result.code == 2
    assert said in result.error
    assert not (tmp_path / "requests").exists()


def test_a_folder_with_other_things_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty and holds no ledger"):
        Ledger(tmp_path).add(person(tmp_path, 0), "2026-01-05")


# ------------------------------------------------------------------------------------------------------ later decisions


def test_an_answer_is_put_off_once_by_two_months(tmp_path: Path) -> None:
    ledger, (request, other) = ledger_of(tmp_path, [0, 1])
    assert ledger.extend(request, "complex").facts["due"] == "2026-04-10"
    with pytest.raises(InputError, match="was extended already"):
        ledger.extend(request, "many")
    ledger.answered(other, "2026-01-20")
    with pytest.raises(InputError, match="was answered already"):
        ledger.extend(other, "many")
    for wrong in ("2026-01-01", "2999-01-01", "soon"):
        with pytest.raises(InputError, match="sent: "):
            ledger.answered(request, wrong)
    with pytest.raises(InputError, match="no such request"):
        ledger.withdraw("r-0000000000", "person")


def test_verify_tells_what_is_broken(run: Run, tmp_path: Path) -> None:
    ledger, ids = ledger_of(tmp_path)
    root = tmp_path / "requests"
    head = document(run("requests", "list", "--ledger", root, "--json"))["head"]
    assert isinstance(head, dict)
    noted = f"{head['n']}:{head['sha256']}"
    ledger.withdraw(ids[0], "mistake")
    good = run("requests", "verify", "--ledger", root, "--head", noted, "--json")
    assert (good.code, document(good)["ok"]) == (0, True)
    other = run("requests", "verify", "--ledger", root, "--head", f"{head['n']}:{'0' * 64}")
    assert other.code == 3 and "the history before it was made anew" in other.stdout
    assert run("requests", "verify", "--ledger", root, "--head", f"99:{'0' * 64}").code == 3
    assert run("requests", "verify", "--ledger", root, "--head", "x").code == 2
    root.chmod(0o755)
    assert run("requests", "verify", "--ledger", root).code == 3
    root.chmod(0o700)
    lines = (root / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (root / "ledger.jsonl").write_bytes(b"".join(lines[:-1]))
    for command in (["verify"], ["list"], ["show", ids[0]], ["withdraw", ids[1], "--reason", "person"]):
        result = run("requests", *command, "--ledger", root)
        assert result.code == 3, command
    assert (root / "ledger.jsonl").read_bytes() == b"".join(lines[:-1])  # nothing was added to a broken chain


def test_no_reading_or_deciding_command_imports_torch(tmp_path: Path) -> None:
    _, ids = ledger_of(tmp_path, [0])
    code = (
        "import sys; from mllmeraser.removals.ledger import Ledger\n"
        "ledger = Ledger(sys.argv[1]); request = sys.argv[2]\n"
        "ledger.listed(); ledger.show(request); ledger.letter(request, 'auditor'); ledger.verify()\n"
        "ledger.add(sys.argv[3], '2026-01-05'); ledger.withdraw(request, 'person'); ledger.erase(request)\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    call = [sys.executable, "-c", code, str(tmp_path / "requests"), ids[0], str(person(tmp_path, 1))]
    assert subprocess.run(call).returncode == 0


def test_every_subcommand_prints_one_document(run: Run, tmp_path: Path) -> None:
    _, ids = ledger_of(tmp_path)
    for command in (
        ["list"],
        ["show", ids[0]],
        ["extend", ids[0], "--reason", "many"],
        ["letter", ids[0], "--for", "subject"],
        ["answered", ids[0]],
        ["withdraw", ids[0], "--reason", "person"],
        ["erase", ids[0]],
        ["verify"],
    ):
        result = run("requests", *command, "--ledger", tmp_path / "requests", "--json")
        assert result.code == 0, result.stderr
        assert json.loads(result.stdout)["schema"] == 1


def test_thirty_requests_are_one_write(tmp_path: Path) -> None:
    rows = []
    for number in range(30):
        name = f"Ada{'abcdefghijklmnopqrstuvwxyzABCD'[number]} Quill"
        lines = [record(name, f"Where does {name} live?", "Graz"), record(name, f"What does {name} do?", "baker")]
        write_records(tmp_path / f"{number}.jsonl", lines)
        rows.append(f"2026-01-{number % 28 + 1:02},{number}.jsonl,{name}")
    told = Ledger(tmp_path / "requests").add_table(table(tmp_path, *rows))
    assert (len(told.facts["added"]), told.facts["refused"]) == (30, 0)
    entries = read_chain(tmp_path / "requests").entries
    assert len(entries) == 61 and len({entry.id for entry in entries}) == 31
