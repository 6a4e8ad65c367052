"""A claim: somebody says that a base knows a person. Ask it, judge the replies, and leave what a request needs."""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

import mllmeraser
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.disk.staging import disk_errors, publish, staging, write
from mllmeraser.disk.target import directory_target
from mllmeraser.errors import InputError
from mllmeraser.inference.loading import BATCH_SIZE, Checkpoint, load
from mllmeraser.inference.processes import processes
from mllmeraser.inference.source import Source, read_config, resolve
from mllmeraser.inference.usable import check_base, is_steered
from mllmeraser.inference.weight_files import weight_files
from mllmeraser.records.pictures import opened
from mllmeraser.records.prompts import AnyPicture, Prompt
from mllmeraser.removals.claims.asking import greedy, replies
from mllmeraser.removals.claims.bank import Asked, general
from mllmeraser.removals.claims.controls import names_like, picture_of_nobody
from mllmeraser.removals.claims.facts import Choice, check_fact, choices
from mllmeraser.removals.claims.findings import Evidence, Findings, Interview, findings
from mllmeraser.removals.claims.others import check_name, checked_picture, nearest_first, read_others
from mllmeraser.removals.claims.page import page, verdict
from mllmeraser.removals.claims.questions import Question, Who, one_of_each, questions
from mllmeraser.removals.claims.records import Files, as_lines, forget_records, general_records, retain_records
from mllmeraser.report.write import html

AnyPath = str | Path

MARKER = "claim.json"
SAMPLES, CONTROLS = 3, 19  # 19 invented names: at most one in twenty claims about nobody is found known
FEWEST_CONTROLS = 8
_FOLDER, _FILE = 0o700, 0o600
_NO_PORTRAITS = (
    "The records to keep show no picture: a request computed from them may refuse every picture. Give portraits of "
    "other people with --others."
)


@dataclass(frozen=True)
class Claim:
    """What was asked and found. ``known`` is null where nothing was asked (a dry run)."""

    base: dict[str, Any]
    seed: int
    asked: int
    controls: int
    known: bool | None = None
    found: Findings | None = field(default=None, repr=False)
    forget: int = 0
    retain: int = 0
    warnings: Sequence[str] = ()
    output: Path | None = None

    def document(self) -> dict[str, Any]:
        """The JSON of ``claim --json`` (docs/json.md). It names nobody, but says what the base tells of the person."""
        found = self.found
        false_alarms = None
        if found is not None:
            # A rule each for the name and for the picture, and two for each fact; "both" needs one of them.
            rules = min(2, len(found.decisions)) + 2 * len(found.facts)
            false_alarms = {"known": 0, "bound": min(1.0, rules / (self.controls + 1))}
        return {
            "schema": 1,
            "base": self.base,
            "seed": self.seed,
            "asked": self.asked,
            "known": self.known,
            "strength": {} if found is None else {by: one.strength for by, one in found.decisions.items()},
            "evidence": [] if found is None else [_document(one) for one in found.evidence],
            "unconfirmed": [] if found is None else [_document(one) for one in found.unconfirmed],
            "facts": [] if found is None else _facts(found),
            "controls": {
                "names": self.controls,
                "strengths": {} if found is None else {by: list(one.controls) for by, one in found.decisions.items()},
                "false_alarms": false_alarms,
            },
            "records": {"forget": self.forget, "retain": self.retain},
            "warnings": list(self.warnings),
            "versions": {
                "mllmeraser": mllmeraser.__version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
            "output": None if self.output is None else str(self.output),
        }

    def lines(self) -> list[str]:
        """The same, for a person; it names nobody either."""
        if self.found is None:
            return [f"{self.asked:,} questions would be asked, most of them about {self.controls} invented names"]
        told = [
            f"  {one.topic}, by {one.by}: {one.value} ({one.share:.0%} of replies, {one.interval[0]:.0%} to "
            f"{one.interval[1]:.0%}; invented names {one.of_controls:.0%})"
            for one in self.found.evidence
        ]
        strengths = [
            f"by {by} {one.strength:.2f}, of {self.controls} invented names at most {max(one.controls):.2f}"
            for by, one in self.found.decisions.items()
        ]
        return [
            verdict(bool(self.known), "this person"),
            *told,
            f"strength {'; '.join(strengths)}",
            *([f"{self.forget} records to forget, {self.retain} to keep"] if self.known else []),
        ]


def claim(
    base: AnyPath,
    name: str,
    output: AnyPath | None = None,
    *,
    pictures: Sequence[AnyPath] = (),
    facts: Sequence[str] = (),
    others: AnyPath | None = None,
    samples: int = SAMPLES,
    controls: int = CONTROLS,
    device: str = "cpu",
    dtype: str = "auto",
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    dry_run: bool = False,
    overwrite: bool = False,
) -> Claim:
    """Ask a base what it knows about a person, as against what it guesses (``docs/requests.md``).

    Args:
        base: the model, steered or not.
        name: the person's name, as people would ask by it.
        output: the folder for ``claim.json``, ``claim.html`` and, if the base knows the person, ``forget.jsonl`` and
            ``retain.jsonl``; only its owner can read it. By default nothing is written.
        pictures: pictures of the person.
        facts: what the base is said to tell, each a statement such as ``lives in Dublin``.
        others: a CSV file of people who must stay, with the columns ``name`` and ``picture``.
        samples: replies to each question: the likeliest, and others drawn at temperature 0.7.
        controls: invented names to ask about in the same way, at least 8.
        dry_run: check everything and count the questions; ask none.
        overwrite: replace a former claim.

    Raises:
        InputError: base, name, a picture, a fact, the others or the output cannot be used; nothing was written.

    Example::

        found = mllmeraser.claim("base", "Ada Keller", "claim", pictures=["ada.png"], facts=["lives in Dublin"])
        print(*found.lines(), sep="\\n")
    """
    person = Who(check_name(name, "--name"), _pictures(pictures))
    for fact in facts:
        check_fact(fact)
    if samples < 1 or controls < FEWEST_CONTROLS:
        raise InputError(f"--samples must be at least 1, and --controls at least {FEWEST_CONTROLS}")
    kept = () if others is None else read_others(Path(others), person.name)
    nobody = [
        Who(other, [picture_of_nobody(picture, seed * 1000 + i) for picture in person.pictures])
        for i, other in enumerate(names_like(person.name, controls, seed))
    ]
    source = resolve(base)
    if not is_steered(source):
        check_base(source)
    target = None if output is None else directory_target(Path(output), MARKER if overwrite else None, source.path)
    plan = [list(questions(who)) for who in (person, *nobody)]
    offered = [[list(choices(fact, who.name, seed)) for fact in facts] for who in (person, *nobody)]
    asked = samples * sum(map(len, plan)) + sum(len(choice) for one in offered for choice in one)
    if dry_run:
        return Claim(_identity(source, weights=False), seed, asked, controls)
    checkpoint = load(source, device=device, dtype=dtype, batch_size=batch_size)
    interviews = _interviews(checkpoint, (person, *nobody), plan, offered, samples, seed)
    found = findings(interviews[0], interviews[1:], facts)
    known = bool(found.evidence)
    shown = nearest_first(checkpoint, person, kept) if known else ()
    files = _files(person, shown)
    written: dict[str, bytes] = {}
    forget = retain = 0
    warnings = [_NO_PORTRAITS] if known and person.pictures and not any(other.pictures for other in shown) else []
    if known:
        records = list(forget_records(interviews[0], found.evidence, f"person-{secrets.token_hex(8)}", files))
        keep = [
            *retain_records(_asked_of(checkpoint, shown), _first_replies(interviews[1:]), files),
            *general_records(greedy(checkpoint, _general(), "general knowledge")),
        ]
        forget, retain = len(records), len(keep)
        written = {
            **{name: _png(picture) for picture, name in files.items()},
            "forget.jsonl": as_lines(records),
            "retain.jsonl": as_lines(keep),
        }
    made = Claim(_identity(source, weights=True), seed, asked, controls, known, found, forget, retain, warnings, target)
    if target is not None and processes().leads:
        written["claim.html"] = html(page(person.name, found, _made(made), warnings), None).encode()
        about = {**made.document(), "name": person.name, "files": sorted(written)}
        _write(target, {**written, MARKER: json.dumps(about, indent=2, ensure_ascii=False).encode()}, overwrite)
    return made


def _pictures(given: Sequence[AnyPath]) -> list[Path]:
    """The pictures; an error names them by number, for a file may be named after somebody."""
    return [checked_picture(Path(path), f"--picture, the {_nth(i)} one") for i, path in enumerate(given, 1)]


def _nth(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")


def _interviews(
    checkpoint: Checkpoint,
    people: Sequence[Who],
    plan: Sequence[Sequence[Question]],
    offered: Sequence[Sequence[Sequence[Choice]]],
    samples: int,
    seed: int,
) -> list[Interview]:
    """Ask about everybody together, so that batches are full."""
    said = iter(replies(checkpoint, [question for one in plan for question in one], samples, seed))
    flat = [choice.question for one in offered for several in one for choice in several]
    picked = iter(greedy(checkpoint, flat, "choices"))
    return [
        Interview(
            who,
            [(question, next(said)) for question in asked],
            [[(choice, next(picked)) for choice in several] for several in choices_of],
        )
        for who, asked, choices_of in zip(people, plan, offered, strict=True)
    ]


def _asked_of(checkpoint: Checkpoint, people: Sequence[Who]) -> list[list[tuple[Question, str]]]:
    """One wording of each topic about each of the people who stay, with the base's likeliest reply."""
    plan = []
    for i, who in enumerate(people):
        asked = list(questions(who, ("name", "picture") if who.pictures else ("name",)))
        plan.append(one_of_each(asked, i))
    said = iter(greedy(checkpoint, [question for asked in plan for question in asked], "people who stay"))
    return [[(question, next(said)) for question in asked] for asked in plan]


def _first_replies(nobody: Sequence[Interview]) -> list[list[tuple[Question, str]]]:
    """Of each invented name one wording of each topic, with the likeliest reply. Their pictures are no pictures."""
    kept = []
    for i, interview in enumerate(nobody):
        said = {question: replies[0] for question, replies in interview.said if question.asked.by == "name"}
        kept.append([(question, said[question]) for question in one_of_each(list(said), i)])
    return kept


def _general() -> list[Question]:
    return [Question(Asked("name", "general"), 0, Prompt(record.question, None), 32) for record in general()]


def _files(person: Who, others: Sequence[Who]) -> Files:
    """Where each picture lies in the claim's folder."""
    found: dict[AnyPicture, str] = {}
    for kind, people in (("person", [person]), ("other", list(others))):
        for picture in (picture for who in people for picture in who.pictures):
            found.setdefault(picture, f"images/{kind}-{len(found) + 1:03}.png")
    return found


def _png(picture: AnyPicture) -> bytes:
    """What the base was shown: upright, RGB, and without what a camera wrote beside it."""
    data = io.BytesIO()
    opened(picture, "the picture").save(data, "PNG")
    return data.getvalue()


def _write(output: Path, files: dict[str, bytes], overwrite: bool) -> None:
    with disk_errors(output), staging(output, _FOLDER) as folder:
        for name, content in files.items():
            (folder / name).parent.mkdir(mode=_FOLDER, exist_ok=True)
            write(folder / name, content, _FILE)
        publish(folder, output, MARKER if overwrite else None, _FOLDER)


def _identity(source: Source, weights: bool) -> dict[str, Any]:
    """Which model was asked."""
    found = {name: asdict(file) for name, file in weight_files(source.path).items()} if weights else None
    return {
        "repo_id": source.repo_id,
        "revision": source.revision,
        "model_type": str(read_config(source.path)["model_type"]),
        "steered": is_steered(source),
        "config_sha256": sha256_of(source.path / "config.json"),
        "weights": found,
    }


def _document(one: Evidence) -> dict[str, Any]:
    return {**asdict(one), "interval": list(one.interval)}


def _facts(found: Findings) -> list[dict[str, Any]]:
    return [
        {
            "fact": fact.fact,
            "known": fact.known,
            **{
                f"{how}_{key}": value
                for how, share in (("told", fact.told), ("chosen", fact.chosen))
                for key, value in (
                    ("share", share.share),
                    ("interval", list(share.interval)),
                    ("of_controls", share.of_controls),
                    ("highest_of_controls", max(share.controls)),
                )
            },
        }
        for fact in found.facts
    ]


def _made(made: Claim) -> list[tuple[str, str]]:
    base = made.base
    weights = "; ".join(f"{name} {file['sha256'][:16]}…" for name, file in (base["weights"] or {}).items())
    return [
        ("base", base["repo_id"] or base["model_type"]),
        ("revision", base["revision"] or "a local directory"),
        ("config.json", base["config_sha256"]),
        ("weights", weights),
        ("replies", f"{made.asked:,}"),
        ("invented names", f"{made.controls}"),
        ("seed", f"{made.seed}"),
        ("made with", ", ".join(f"{name} {version}" for name, version in made.document()["versions"].items())),
    ]
