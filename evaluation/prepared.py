"""Answers given elsewhere, for example by a model behind an API or in another harness, scored as a model's.

The file is JSON Lines, one reply a line. Its keys are ``set``, ``index`` (from 0, in the set) and ``reply``. Where they
are known, a line also holds ``reply_ids`` and the likelihoods that metrics need: ``log_likelihoods`` of the options, in
order; ``answer`` and ``paraphrase``, each log p and a number of tokens; ``perturbed``, a list of such pairs.
``--items`` writes such a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mllmeraser.errors import InputError
from mllmeraser.evaluation.items import Reply
from mllmeraser.inference.gates import GateValue
from mllmeraser.inference.replies import Likelihood


class Line(BaseModel):
    """One line of the file; other keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    set: str
    index: int
    reply: str
    model: str | None = None
    reply_ids: Sequence[int] | None = None
    log_likelihoods: Sequence[float] = ()
    answer: Likelihood | None = None
    paraphrase: Likelihood | None = None
    perturbed: Sequence[Likelihood] = ()
    gates: Sequence[GateValue] = ()

    def as_reply(self) -> Reply:
        """The reply. Without token ids its bytes stand in for them, so that replies are compared by their text."""
        return Reply(
            text=self.reply,
            ids=tuple(self.reply.encode() if self.reply_ids is None else self.reply_ids),
            log_likelihoods=tuple(self.log_likelihoods),
            answer=self.answer,
            paraphrase=self.paraphrase,
            perturbed=tuple(self.perturbed),
            gates=tuple(self.gates),
        )


@dataclass(frozen=True)
class NamedAnswers:
    """Answers given elsewhere, by set and index, and the name that their rows carry."""

    name: str
    path: Path
    replies: Mapping[tuple[str, int], Reply]

    def reply(self, set_name: str, index: int) -> Reply:
        """The answer to a record.

        Raises:
            InputError: the file holds none.
        """
        if (set_name, index) not in self.replies:
            raise InputError(f"{self.path}: holds no answer to record {index} of set {set_name}")
        return self.replies[set_name, index]


def read_answers(name: str, path: Path) -> NamedAnswers:
    """Read a file of answers. Where it holds items of several models, only those of ``name`` are taken.

    Raises:
        InputError: a line is no answer, or a record has two; the message names file, line and key.
    """
    replies: dict[tuple[str, int], Reply] = {}
    lines = [line for line in enumerate(path.read_bytes().split(b"\n"), 1) if line[1].strip()]
    parsed = [(number, _parse(path, number, line)) for number, line in lines]
    several = len({line.model for _, line in parsed}) > 1
    for number, line in parsed:
        if several and line.model != name:
            continue
        if (line.set, line.index) in replies:
            raise InputError(f"{path}, line {number}: a second answer to record {line.index} of set {line.set}")
        replies[line.set, line.index] = line.as_reply()
    if not replies:
        raise InputError(f"{path}: holds no answer of {name}; name the model with NAME={path.name}")
    return NamedAnswers(name, path, replies)


def _parse(path: Path, number: int, line: bytes) -> Line:
    try:
        return Line.model_validate(json.loads(line))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {number}: not valid JSON ({error})") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}, line {number}: {key}: {first['msg']}") from None
