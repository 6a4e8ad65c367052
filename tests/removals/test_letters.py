"""Letters say where a request stands, in plain words and from the ledger alone; a name in them is only a name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from builders.command_line import Run, document
from builders.requests import claim, ledger_of, person, record
from builders.talker import write_records

from mllmeraser.bundle.limits import LIMITS
from mllmeraser.removals.claims.bank import general
from mllmeraser.removals.entries import (
    Asked,
    Attacked,
    BaseFacts,
    Computed,
    Exported,
    Figures,
    InExport,
    Measured,
    MeasuredKept,
    Share,
)
from mllmeraser.removals.ledger import Ledger
from mllmeraser.removals.writing import Audience, Letter, Part, Table

AUDIENCES: tuple[Audience, ...] = ("subject", "controller", "auditor")
MANIFEST = "a1" * 32


def written(ledger: Ledger, request: str, audience: Audience = "subject") -> str:
    """The Markdown of a letter."""
    told = ledger.letter(request, audience)
    return Path(told.facts["outputs"][0]).read_text(encoding="utf-8")


def active(ledger: Ledger, request: str, told: float = 0.0) -> None:
    """Entries as if the request had been computed, exported and measured."""
    ledger.folder.bundle(request).write_bytes(b"x")
    share = Share(share=0.75, n=80)
    facts = Computed(
        bundle_sha256="b2" * 32,
        bundle_bytes=1234,
        base=BaseFacts(repo_id="org/base", revision="c3" * 20, config_sha256="d4" * 32),
        forget=80,
        retain=900,
        seed=7,
        figures=Figures(
            recognised=share, false_fires=Share(share=0.002, n=900), refused=None, untold=None, general=share
        ),
    )
    assert ledger._note(request, facts)
    rows = (InExport(id=request, recognised=share, false_fires=None),)
    asked = Asked(n=40, told=1.0, refused=0.0, identical=1.0)
    after = Asked(n=40, told=told, refused=1 - told, identical=0.0)
    attacked = Attacked(attack="cropped pictures", n=40, told=0.05)
    reworded = Attacked(attack="paraphrase", n=40, told=0.1)
    with ledger._writing("") as (writer, _):
        writer.append(
            [
                (None, Exported(manifest_sha256=MANIFEST, requests=rows, shares=4, signed_by=None)),
                (
                    request,
                    Measured(
                        manifest_sha256=MANIFEST,
                        before=asked,
                        after=after,
                        reworded=reworded,
                        worst_attack=attacked,
                        any_attack=attacked,
                    ),
                ),
                (None, MeasuredKept(manifest_sha256=MANIFEST, after=Asked(n=192, told=1, refused=0, identical=0.995))),
            ]
        )


def test_the_letter_to_the_person_is_short_and_says_what_was_found_done_and_meant(tmp_path: Path) -> None:
    ledger, (request, *_) = ledger_of(tmp_path)
    active(ledger, request)
    text = written(ledger, request)
    assert text.startswith("# Your request of 10 January 2026\n\nDear Ada Quillfeather,\n")
    assert "Our reference is case-0" in text
    assert "We asked the model 40 questions about you. Before, it told the right answer to all of them." in text
    assert "it refuses such questions. Asked again in the same words, it told the right answer to none." in text
    assert "In six other wordings of each question, it told the right answer to 4 of them." in text
    assert "This suppresses; it does not delete." in text and "flagged the model" in text
    assert "data protection authority" in text
    assert len(text.split()) <= 200
    assert not re.search(r"sha256|gate|bundle|ledger|Wilson|%", text)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (0.0, "it refuses such questions. Asked again in the same words, it told the right answer to none"),
        (0.1, "it refuses most such questions. Asked again in the same words, it told the right answer to 4 of them"),
        (0.75, "it refuses some such questions. Asked again in the same words, it told the right answer to 30 of them"),
    ],
)
def test_the_letter_does_not_promise_more_than_was_measured(tmp_path: Path, told: float, words: str) -> None:
    ledger, (request, *_) = ledger_of(tmp_path)
    active(ledger, request, told)
    assert words in written(ledger, request)


def test_every_other_end_has_its_own_plain_words(tmp_path: Path) -> None:
    ledger, (waiting, extended, withdrawn) = ledger_of(tmp_path)
    ledger.extend(extended, "many")
    active(ledger, withdrawn)
    ledger.withdraw(withdrawn, "person")
    ledger.add(claim(tmp_path / "nobody", False), "2026-01-05")
    ledger.add(claim(tmp_path / "known", True, person(tmp_path, 3)), "2026-01-05")
    rows = [record("x", each.question, each.answer) for each in general()[:40]]
    ledger.add(write_records(tmp_path / "hostile.jsonl", rows), "2026-01-05")
    nobody, known, hostile = list(ledger.state().requests)[3:]
    said = {request: written(ledger, request) for request in ledger.state().requests}
    assert "You will have our answer by 10 February 2026." in said[waiting]
    assert "We need two more months, because we have received many requests." in said[extended]
    assert "You will have our answer by 11 April 2026." in said[extended]
    assert "You have withdrawn the request." in said[withdrawn] and "still refuses" in said[withdrawn]
    assert "there is nothing to suppress, and we changed nothing" in said[nobody]
    assert "On 3 topics it told the same about you again and again." in said[known]
    assert "15.7% of 254 questions of general knowledge" in said[hostile]
    for text in said.values():
        assert len(text.split()) <= 200
        assert "authority" in text
    for request in (waiting, nobody, hostile):
        assert "suppresses" not in said[request]
        assert "Nothing is suppressed for this request." in written(ledger, request, "controller")


def test_the_auditors_letter_has_every_fact_with_its_interval_and_no_name(tmp_path: Path) -> None:
    ledger, (request, *_) = ledger_of(tmp_path)
    active(ledger, request)
    chain = ledger.chain()
    text = written(ledger, request, "auditor").replace("\\", "")
    for fact in (
        LIMITS,
        "org/base@" + "c3" * 20,
        "b2" * 32,
        MANIFEST,
        "| before, in the words of the request: answers told | 100 % (91.2–100) | 40 |",
        "| now, in the words of the request: answers told | 0 % (0–8.8) | 40 |",
        "| now, in any of six other wordings: answers told | 10 % (4–23.1) | 40 |",
        "| worst attack (cropped pictures): answers told | 5 % (1.4–16.5) | 40 |",
        "| what is kept: replies as the base's, word for word | 99.5 % (97.1–99.9) | 192 |",
        "| shares of the budget of false fires | 4 |",
        f"--head {chain.head}",
    ):
        assert fact in text, fact
    for entry in chain.entries:
        assert (entry.sha256 in text) is (entry.id == request or entry.sha256 == chain.head.sha256)
    for word in ("Ada", "Quillfeather", "case-0"):
        assert word not in text
    assert "case-0" in written(ledger, request, "controller")


def test_a_name_obeys_nobody(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "requests")
    name = "</title><script>alert(1)</script>\n# Heading [x](http://y) | *bold* `code`"
    ledger.add(person(tmp_path, 0), "2026-01-05", name=name, reference="<b>")
    (request,) = ledger.state().requests
    told = ledger.letter(request, "subject")
    markdown, html = (Path(path).read_text(encoding="utf-8") for path in told.facts["outputs"])
    assert "<script" not in html and "&lt;script&gt;" in html and "<b>" not in html
    assert (
        "\n# Heading" not in markdown and "\\[x\\]" in markdown and "\\*bold\\*" in markdown and "\\<b\\>" in markdown
    )
    assert "default-src 'none'" in html
    assert all(Path(path).stat().st_mode & 0o777 == 0o600 for path in told.facts["outputs"])


def test_html_and_markdown_have_the_same_words() -> None:
    letter = Letter("T", [Part("H", ["one", "- two"], Table(("a", "b"), [("c", "d|e")]), ["run it"])])
    assert (
        letter.markdown()
        == "# T\n\n## H\n\none\n\n\\- two\n\n| a | b |\n|---|---|\n| c | d\\|e |\n\n```\nrun it\n```\n"
    )
    words = re.sub(r"<style>.*?</style>|<[^>]+>", " ", letter.html(), flags=re.S).split()
    assert words == ["T", "T", "H", "one", "-", "two", "a", "b", "c", "d|e", "run", "it"]


def test_letters_from_the_command_line(run: Run, tmp_path: Path) -> None:
    ledger, (request, *_) = ledger_of(tmp_path)
    root = ledger.folder.root
    (tmp_path / "out").mkdir()
    for audience in AUDIENCES:
        call = ["requests", "letter", request, "--for", audience, "--ledger", root, "-o", tmp_path / "out"]
        first = run(*call)
        assert first.code == 0 and first.stdout.startswith("# ")
        again = run(*call)
        assert (again.code, "--overwrite" in again.error) == (2, True)
        assert document(run(*call, "--overwrite", "--json"))["audience"] == audience
    assert len(list((tmp_path / "out").iterdir())) == 6
    missing = run("requests", "letter", request, "--for", "subject", "--ledger", root, "-o", tmp_path / "none")
    assert missing.error.endswith("no such directory; create it first")


def test_the_report_shows_the_ledger_and_one_request_with_intervals_and_no_name(run: Run, tmp_path: Path) -> None:
    ledger, (request, other, _) = ledger_of(tmp_path)
    active(ledger, request, 0.1)
    ledger.answered(other, "2026-01-20")
    call = ["requests", "report", "--ledger", ledger.folder.root, "-o"]
    whole, single = tmp_path / "all.html", tmp_path / "one.html"
    assert run(*call, whole).code == 0
    assert document(run(*call, single, request, "--json"))["requests"] == 1
    for path in (whole, single):
        text = path.read_text(encoding="utf-8")
        assert "10 % (4–23.1)" in text and "5 % (1.4–16.5), cropped pictures" in text and "<svg" in text
        assert "99.5 % (97.1–99.9) of 192 replies are the base&#39;s" in text
        assert not re.search("Ada|Quillfeather|case-0", text)
    assert other in whole.read_text() and other not in single.read_text()
    assert "Answered in time: 1. Not answered yet: 2, of which overdue:" in whole.read_text()
    assert run(*call, whole).code == 2
