"""Writes ``--items FILE`` during a run: every reply is kept at once, so that a later run need not ask again.

The key of a reply is the sha256 of all that it depends on: the bytes of the model's files, its precision, the prompt
with its pictures, the replies whose likelihood was asked, and the length limit. Names of models and sets are left out,
so renaming one asks nothing again. A killed run leaves a file of the replies it had; its last line may be cut off. The
next run reuses these replies and leaves exactly its own items, in order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mllmeraser.console import console
from mllmeraser.disk.atomic import write_atomically
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.errors import InputError
from mllmeraser.evaluation.items import Item, Reply
from mllmeraser.inference.cache import digest, fingerprint
from mllmeraser.inference.gates import GateValue
from mllmeraser.inference.processes import processes
from mllmeraser.inference.replies import Likelihood
from mllmeraser.records.prompts import Prompt

_READ = (".safetensors", ".json", ".jinja", ".model")  # the files of a model, its processor and its chat template


def model_digest(directory: Path, dtype: str) -> str:
    """The sha256 over a checkpoint's files (names and contents) and the precision it runs in."""
    files = {path.name: sha256_of(path) for path in sorted(directory.iterdir()) if path.suffix in _READ}
    return digest([dtype, files])


def key_of(model: str, prompt: Prompt, weighed: Mapping[str, Sequence[str]], limit: int) -> str:
    """The key of a reply in the file."""
    return digest([model, fingerprint(prompt), weighed, limit])


@dataclass
class Journal:
    """The replies of an earlier run by key, and the file for new ones; without a path nothing is kept."""

    path: Path | None = None
    known: dict[str, Reply] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path | None) -> Journal:
        """Read the items of an earlier run, if the file exists.

        Raises:
            InputError: the file holds something other than items.
        """
        if path is None:
            return cls()
        if not path.parent.is_dir():
            raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")
        if path.is_dir():
            raise InputError(f"{path}: is a directory; choose a file")
        known: dict[str, Reply] = {}
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        kept = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                item = json.loads(line)
                reply = _reply(item)
                if item["key"] is not None:  # a model in memory has no digest
                    known[str(item["key"])] = reply
                    kept.append(line)
            except (ValueError, KeyError, TypeError) as error:
                if number < len(lines) or not kept:  # only the last line may have been cut off
                    raise InputError(
                        f"{path}, line {number}: not an item of an evaluation; name another file or remove this one"
                    ) from error
        if processes().leads:
            write_atomically(path, b"".join(line + b"\n" for line in kept))
        if known:
            console.print(f"{path}: holds {len(known)} replies, which are not asked for again", soft_wrap=True)
        return cls(path, known)

    def add(self, items: Iterable[Item]) -> None:
        """Append items at once, so that a run that is killed keeps them."""
        if self.path is not None and processes().leads:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(item_line(item) for item in items)

    def finish(self, items: Iterable[Item]) -> None:
        """Replace the file by the items of the whole run, in order."""
        if self.path is not None and processes().leads:
            write_atomically(self.path, "".join(map(item_line, items)).encode())


def item_line(item: Item) -> str:
    """An item as a line of JSON."""
    return json.dumps(asdict(item), ensure_ascii=False) + "\n"


def _reply(item: Mapping[str, Any]) -> Reply:
    """The reply that an item was made from."""
    return Reply(
        text=item["reply"],
        ids=tuple(item["reply_ids"]),
        log_likelihoods=tuple(item["log_likelihoods"]),
        answer=None if item["answer"] is None else Likelihood(*item["answer"]),
        paraphrase=None if item["paraphrase"] is None else Likelihood(*item["paraphrase"]),
        perturbed=tuple(Likelihood(*likely) for likely in item["perturbed"]),
        gates=tuple(GateValue(*gate) for gate in item["gates"]),
    )
