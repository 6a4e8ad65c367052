"""A claim from the call to the folder: what it writes for whom, what it refuses, and that it names nobody outside."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from builders import talker
from builders.checkpoints import edit_json
from builders.command_line import Run, document

import mllmeraser
from mllmeraser.errors import InputError
from mllmeraser.inference.loading import Checkpoint
from mllmeraser.judging.answers import verdict
from mllmeraser.records.pictures import content
from mllmeraser.records.read import read_records
from mllmeraser.records.record import refuse_overlap
from mllmeraser.removals.claims import claim as claims
from mllmeraser.removals.claims.questions import Question

NAME = "Ada Quillfeather"
FEW = ["--samples=1", "--controls=8"]
UNKNOWN = "I do not know this person."


def spoken(question: Question, knows: bool = True) -> str:
    """What a base says that knows Ada by name, and by a picture that is not shuffled."""
    text, image = question.prompt.text, question.prompt.image
    if question.asked.topic == "general":
        return "It is so."
    if question.asked.topic == "fact":
        line = next((line for line in text.splitlines() if line.endswith("enjoys chess")), "?")
        return line[0] if knows and NAME in text else "A"
    by_picture = question.asked.by == "picture" and isinstance(image, Path) and image.name == "ada.png"
    if not knows or not (by_picture or NAME in text):
        return UNKNOWN
    told = {"occupation": "works as a glazier", "home": "lives in Riga, Latvia", "name": "is shown here"}
    return f"{NAME} {told[question.asked.topic]}." if question.asked.topic in told else UNKNOWN


@pytest.fixture
def base(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny base of ``world``, whose replies about people are those of :func:`spoken`."""
    return talking(world, monkeypatch, knows=True)


@pytest.fixture
def ignorant(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, of one that knows nobody."""
    return talking(world, monkeypatch, knows=False)


def talking(world: Path, patch: pytest.MonkeyPatch, knows: bool) -> Path:
    def greedy(checkpoint: Checkpoint, asked: Sequence[Question], progress: str) -> list[str]:
        return [spoken(question, knows) for question in asked]

    def replies(checkpoint: Checkpoint, asked: Sequence[Question], samples: int, seed: int) -> list[list[str]]:
        return [[spoken(question, knows)] * samples for question in asked]

    patch.setattr(claims, "greedy", greedy)
    patch.setattr(claims, "replies", replies)
    return world / "base"


def pictures(folder: Path) -> Path:
    """A picture of Ada, and one of somebody else."""
    talker.picture(5).save(folder / "ada.png")
    talker.picture(6).save(folder / "other.png")
    return folder / "ada.png"


def others(folder: Path, text: str = "name,picture\nAda Quillfeder,other.png\nBoris Zukov,\n") -> Path:
    path = folder / "others.csv"
    path.write_text(text, encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------------ what it writes


def test_whoever_is_known_gets_evidence_records_and_a_page(base: Path, tmp_path: Path) -> None:
    ada, output = pictures(tmp_path), tmp_path / "claim"
    found = mllmeraser.claim(
        base,
        NAME,
        output,
        pictures=[ada],
        facts=["enjoys chess", "plays the cello", "lives in Latvia"],
        others=others(tmp_path),
        samples=1,
    )
    written = json.loads((output / "claim.json").read_bytes())
    assert (written["known"], written["schema"], written["name"]) == (True, 1, NAME)
    told = {(one["topic"], one["by"]): one["value"] for one in written["evidence"]}
    assert told == {
        ("occupation", "name"): "glazier",
        ("home", "name"): "Riga, Latvia",
        ("occupation", "picture"): "glazier",
        ("home", "picture"): "Riga, Latvia",
        ("name", "picture"): NAME,
        ("occupation", "both"): "glazier",
        ("home", "both"): "Riga, Latvia",
        ("fact", "name"): "enjoys chess",
    }
    assert [(fact["fact"], fact["known"]) for fact in written["facts"]] == [
        ("enjoys chess", True),
        ("plays the cello", False),
        ("lives in Latvia", True),  # the evidence tells it already
    ]
    assert {(one["share"], one["of_controls"] > 0) for one in written["evidence"]} == {(1.0, False), (1.0, True)}
    assert all(0.3 < one["confidence"] < one["interval"][0] for one in written["evidence"])
    home = next(one for one in written["evidence"] if (one["topic"], one["by"]) == ("home", "name"))
    assert home["replies"] == [{"question": home["wordings"][0], "reply": f"{NAME} lives in Riga, Latvia."}]
    assert len(home["wordings"]) == 4
    assert written["controls"]["false_alarms"] == {"known": 0, "bound": 8 / 20}
    assert set(written["controls"]["strengths"]) == {"name", "picture", "both"}
    assert written["records"] == {"forget": found.forget, "retain": found.retain}

    forget, retain = read_records(output / "forget.jsonl"), read_records(output / "retain.jsonl")
    assert len(forget) == found.forget == 4 + 4 + 4 + 4 + 4 + 4 + 4 + 8
    assert len({record.subject for record in forget}) == 1
    assert not any("Ada" in record.subject or "Quill" in record.subject for record in forget)
    for record in forget:
        assert verdict(record.options[record.answer] if record.options else record.answer, record).degree == "told"
    assert {content(record.image, "it") for record in forget if record.image} == {content(ada, "it")}
    assert [record.subject for record in retain[:1]] == ["other-001"]
    assert "Ada Quillfeder" in retain[0].question  # the likest first
    assert {record.subject.partition("-")[0] for record in retain} == {"other", "nobody", "general"}
    refuse_overlap(forget, retain)
    page = (output / "claim.html").read_text(encoding="utf-8")
    assert "Riga, Latvia" in page and f"The model knows {NAME}." in page
    assert "<script" not in page


def test_of_whom_nothing_is_known_nothing_but_that_is_written(ignorant: Path, tmp_path: Path, run: Run) -> None:
    output = tmp_path / "claim"
    result = run("claim", ignorant, "--name", NAME, "--picture", pictures(tmp_path), *FEW, "-o", output, "--json")
    assert result.code == 0
    found = document(result)
    assert found["known"] is False
    assert found["evidence"] == []
    assert {path.name for path in output.iterdir()} == {"claim.json", "claim.html"}
    assert run("claim", ignorant, "--name", NAME, *FEW, "-o", tmp_path / "b").stdout.startswith(
        "The model knows nothing about this person.\n"
    )


def test_a_picture_that_the_base_only_describes_is_no_knowledge(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def described(checkpoint: Checkpoint, asked: Sequence[Question], samples: int, seed: int) -> list[list[str]]:
        suit = [q.asked.topic == "occupation" and isinstance(q.prompt.image, Path) for q in asked]
        return [["A banker in a grey suit." if wears else UNKNOWN] * samples for wears in suit]

    monkeypatch.setattr(claims, "replies", described)
    found = mllmeraser.claim(base, NAME, pictures=[pictures(tmp_path)], samples=1, controls=8)
    assert found.known is False
    assert found.found is not None
    assert {one.by for one in found.found.unconfirmed} == {"picture", "both"}


def test_only_its_owner_can_look_into_the_folder(base: Path, tmp_path: Path) -> None:
    output = tmp_path / "claim"
    mllmeraser.claim(base, NAME, output, pictures=[pictures(tmp_path)], samples=1, controls=8)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (output, *output.rglob("*"))}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if not path.is_dir()} == {0o600}


def test_two_claims_of_one_seed_are_the_same_but_for_the_random_id(base: Path, tmp_path: Path) -> None:
    ids = []
    for name in "ab":
        mllmeraser.claim(base, NAME, tmp_path / name, samples=1, controls=8)
        ids.append(read_records(tmp_path / name / "forget.jsonl")[0].subject)
    assert ids[0] != ids[1]
    a, b = ((tmp_path / name / "forget.jsonl").read_text() for name in "ab")
    assert a.replace(ids[0], ids[1]) == b
    assert (tmp_path / "a" / "retain.jsonl").read_bytes() == (tmp_path / "b" / "retain.jsonl").read_bytes()


def test_a_request_with_pictures_is_warned_of_a_retain_set_without(base: Path, tmp_path: Path, run: Run) -> None:
    asked = ["claim", base, "--name", NAME, "--picture", pictures(tmp_path), *FEW]
    assert "warning: The records to keep show no picture" in run(*asked, "-o", tmp_path / "a").stderr
    with_portraits = run(*asked, "--others", others(tmp_path), "-o", tmp_path / "b")
    assert "warning" not in with_portraits.stderr


def test_a_dry_run_counts_and_writes_nothing(base: Path, tmp_path: Path, run: Run) -> None:
    result = run("claim", base, "--name", NAME, *FEW, "-o", tmp_path / "claim", "--dry-run", "--json")
    found = document(result)
    assert (found["known"], found["asked"]) == (None, 9 * 68)
    assert not (tmp_path / "claim").exists()


# ---------------------------------------------------------------------------------------------------- whom it names


def test_what_is_printed_names_nobody(base: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    for more in ((), ("--json",), ("--dry-run",)):
        result = run("claim", base, "--name", NAME, *FEW, "-o", folder / f"claim{len(more)}", "--overwrite", *more)
        assert result.code == 0
        said = result.stderr + (result.stdout if more != ("--json",) else "")
        assert "Quillfeather" not in said
        if more == ("--json",):
            assert '"name": "Ada' not in result.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "holds no letter"),
        ("  12 ", "holds no letter"),
        ("Quillfeather <image>", "no name of a person"),
        ("Quillfeather\n\x1b[2J", "no name of a person"),
        ("Quillfeather " * 40, "no name of a person"),
    ],
)
def test_a_name_that_cannot_be_asked_about_is_one_line_without_it(
    base: Path, tmp_path: Path, run: Run, name: str, said: str
) -> None:
    result = run("claim", base, "--name", name, "-o", tmp_path / "claim")
    assert result.code == 2
    assert result.error.startswith("--name: ") and said in result.error
    assert "Quillfeather" not in result.error
    assert not (tmp_path / "claim").exists()


def test_an_error_about_a_prompt_does_not_quote_it(world: Path, tmp_path: Path, run: Run) -> None:
    config = json.loads((world / "base" / "config.json").read_text())
    short = Path(shutil.copytree(world / "base", tmp_path / "base"))
    edit_json(short / "config.json", text_config={**config["text_config"], "max_position_embeddings": 8})
    result = run("claim", short, "--name", NAME, *FEW, "-o", tmp_path / "claim")
    assert result.code == 2
    assert result.error.startswith("a question about a person: ")
    assert "Quillfeather" not in result.error


# ------------------------------------------------------------------------------------------------------ what it refuses


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("person\nBoris\n", "others.csv: no column name"),
        ("", "others.csv: no column name"),
        ("name\n", "others.csv: holds nobody"),
        ("name,picture\nBoris Zukov,other.png\n,\n", "others.csv, line 3: name: holds no letter"),
        ("name,picture\nBoris Zukov,gone-Boris.png\n", "others.csv, line 2: picture: no such file"),
        ("name,picture\nBoris Zukov,others.csv\n", "others.csv, line 2: picture: not a readable picture"),
        ("name\n ada  QUILLFEATHER\n", "others.csv, line 2: names the person whom the claim is about"),
    ],
)
def test_others_that_cannot_be_read_are_one_line_by_number(
    base: Path, tmp_path: Path, run: Run, text: str, said: str
) -> None:
    pictures(tmp_path)
    result = run("claim", base, "--name", NAME, "--others", others(tmp_path, text), "-o", tmp_path / "claim")
    assert result.code == 2
    assert said in result.error
    assert "Boris" not in result.error.replace("others.csv", "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--picture", "Quillfeather.png"], "--picture, the first one: no such file"),
        (["--others", "gone.csv"], "gone.csv: no such file"),
        (["--fact", "yes"], "--fact: any reply may hold it by chance"),
        (["--controls", "9000"], "--controls 9000: the bank has"),
        (["--controls", "7"], "--controls"),
        (["--samples", "0"], "--samples"),
    ],
)
def test_what_cannot_be_used_is_one_line(base: Path, tmp_path: Path, run: Run, options: list[str], said: str) -> None:
    result = run("claim", base, "--name", NAME, *options, "-o", tmp_path / "claim")
    assert result.code == 2
    assert said in result.error
    assert not (tmp_path / "claim").exists()


def test_a_former_claim_is_replaced_only_when_that_is_said_and_nothing_else_is(
    base: Path, tmp_path: Path, run: Run
) -> None:
    output = tmp_path / "claim"
    asked = ["claim", base, "--name", NAME, *FEW, "-o", output]
    assert run(*asked).code == 0
    assert "--overwrite" in run(*asked).error
    assert run(*asked, "--overwrite").code == 0
    (output / "notes.txt").write_text("mine")
    assert "notes.txt" in run(*asked, "--overwrite").error
    assert (output / "notes.txt").exists()


def test_it_is_whole_or_not_there(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(claims, "write", full)
    with pytest.raises(mllmeraser.errors.MllmEraserError, match="No space left"):
        mllmeraser.claim(base, NAME, tmp_path / "claim", samples=1, controls=8)
    assert list(tmp_path.iterdir()) == []


def test_a_base_that_cannot_be_used_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        mllmeraser.claim(tmp_path / "gone", NAME)


# ------------------------------------------------------------------------------------------------------ the demo's base


@pytest.mark.slow
def test_the_demo_knows_its_people_by_name_and_by_picture_and_nobody_else(
    demo_data: dict[str, Path], tmp_path: Path
) -> None:
    from mllmeraser.demo.people import world
    from mllmeraser.demo.run import CHECKPOINT

    person = world().people[0]
    shown = next(r.image for r in read_records(demo_data["test"]) if r.subject == person.subject and r.image)
    found = mllmeraser.claim(CHECKPOINT, person.name, pictures=[shown], samples=1, controls=8, dtype="float32")  # type: ignore[list-item]
    assert found.found is not None
    told = {(one.by, one.value) for one in found.found.evidence}
    assert ("name", person.value("profession")) in told
    assert ("name", person.value("city")) in told
    assert ("picture", person.name) in told
    assert mllmeraser.claim(CHECKPOINT, "Torus Stonewick", samples=1, controls=8, dtype="float32").known is False
