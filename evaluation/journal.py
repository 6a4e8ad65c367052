"""``--items FILE`` while it is written: every reply is kept as soon as it is there, and is not asked for again.

A reply is known by the sha256 of all it follows from: the bytes of the model's files, its precision, the prompt with
its pictures, the replies that were weighed, and the limit. Names of models and sets are not part of it: renaming one
asks nothing. A killed run leaves a file of the replies it had, the last line perhaps cut off; the next run goes on from
there, and leaves exactly its own items, in order.
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

_READ = (".safetensors", ".json", ".jinja", ".model")  # what a model, its processor and its template are made of


def model_digest(directory: Path, dtype: str) -> str:
    """The sha256 of a checkpoint's files, by name, and of the precision it runs in."""
    files = {path.name: sha256_of(path) for path in sorted(directory.iterdir()) if path.suffix in _READ}
    return digest([dtype, files])


def key_of(model: str, prompt: Prompt, weighed: Mapping[str, Sequence[str]], limit: int) -> str:
    """What names a reply in the file."""
    return digest([model, fingerprint(prompt), weighed, limit])


@dataclass
class Journal:
    """The replies of an earlier run by key, and where new ones go; without a path it keeps nothing."""

    path: Path | None = None
    known: dict[str, Reply] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path | None) -> Journal:
        """Read what a file holds; it need not be there.

        Raises:
            InputError: the file is there and holds something else than items.
        """
        if path is None:
            return cls()
        if not path.parent.is_dir():
            raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")
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
                        f"{path}, line {number}: no item of an evaluation; name another file, or remove this one"
                    ) from error
        if processes().leads:
            write_atomically(path, b"".join(line + b"\n" for line in kept))
        if known:
            console.print(f"{path}: {len(known)} replies are there and are not asked for again", soft_wrap=True)
        return cls(path, known)

    def add(self, items: Iterable[Item]) -> None:
        """Append items, so that they are kept whatever comes."""
        if self.path is not None and processes().leads:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(item_line(item) for item in items)

    def finish(self, items: Iterable[Item]) -> None:
        """Leave the items of the whole run, in order."""
        if self.path is not None and processes().leads:
            write_atomically(self.path, "".join(map(item_line, items)).encode())


def item_line(item: Item) -> str:
    """An item as a line of JSON."""
    return json.dumps(asdict(item), ensure_ascii=False) + "\n"


def _reply(item: Mapping[str, Any]) -> Reply:
    """The reply that an item was made of."""
    return Reply(
        text=item["reply"],
        ids=tuple(item["reply_ids"]),
        log_likelihoods=tuple(item["log_likelihoods"]),
        answer=None if item["answer"] is None else Likelihood(*item["answer"]),
        paraphrase=None if item["paraphrase"] is None else Likelihood(*item["paraphrase"]),
        perturbed=tuple(Likelihood(*likely) for likely in item["perturbed"]),
        gates=tuple(GateValue(*gate) for gate in item["gates"]),
    )
