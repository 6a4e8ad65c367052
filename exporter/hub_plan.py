"""What a push will do with each file, decided from the directory, the base and the repository as they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash

from mllmeraser.errors import InputError
from mllmeraser.exporter.card import Gated
from mllmeraser.exporter.names import CARD, MANIFEST

Action = Literal["copy", "upload", "keep", "delete"]
_OF_THE_HUB = ".gitattributes"  # written by the Hub itself


@dataclass(frozen=True)
class PushedFile:
    """A file that the repository shall hold: its content, or the path of it."""

    name: str
    size: int  # bytes
    sha256: str
    content: bytes | Path

    def is_in(self, remote: RepoFile) -> bool:
        """Whether the Hub holds these bytes, by the sha256 of a large file or by git's hash of a small one."""
        if remote.lfs is not None:
            return bool(remote.lfs.sha256 == self.sha256)
        data = self.content if isinstance(self.content, bytes) else self.content.read_bytes()
        return bool(remote.blob_id == git_hash(data))


@dataclass(frozen=True)
class HubBase:
    """The base on the Hub."""

    repo_id: str
    revision: str
    private: bool
    gated: Gated
    terms: Mapping[str, Any]  # the extra_gated_… keys of its card
    large: Mapping[str, str]  # file name by sha256, of the files that the Hub can copy


@dataclass(frozen=True)
class Target:
    """The repository before the push; ``head`` is None if there is none yet."""

    repo_id: str
    head: str | None = None
    private: bool = True
    gated: Gated = False
    files: Mapping[str, RepoFile] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """What the push does with one file of the repository."""

    name: str
    action: Action
    size: int
    file: PushedFile | None  # None: the file is deleted
    copied_from: str | None = None  # the file's name at the base

    def operation(
        self, base: HubBase | None
    ) -> CommitOperationAdd | CommitOperationCopy | CommitOperationDelete | None:
        """The step as an operation of a commit, a new one each time: the client changes it. None: nothing to do."""
        if self.file is None:
            return CommitOperationDelete(self.name)
        if self.action == "keep":
            return None
        if self.action == "copy" and base is not None and self.copied_from is not None:
            return CommitOperationCopy(
                src_path_in_repo=self.copied_from,
                path_in_repo=self.name,
                src_revision=base.revision,
                src_repo_id=base.repo_id,
                src_repo_type="model",
            )
        return CommitOperationAdd(self.name, self.file.content)


def model_tag(manifest: Mapping[str, Any]) -> str:
    """A tag that names a model by its content: ``steered-`` and twelve digits of a hash of all files but the card.

    The card is left out because it holds the tag.
    """
    content = {name: entry["sha256"] for name, entry in manifest["files"].items() if name != CARD}
    return f"steered-{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]}"


def make_steps(files: Iterable[PushedFile], base: HubBase | None, target: Target) -> tuple[Step, ...]:
    """Decide what to do with every file, so that the repository ends up like the directory.

    Raises:
        InputError: the repository holds files that did not come from a push of ours.
    """
    steps = [_step(file, base, target) for file in files]
    extra = sorted(target.files.keys() - {step.name for step in steps} - {_OF_THE_HUB})
    if extra and MANIFEST not in target.files:
        raise InputError(
            f"{target.repo_id}: holds {extra[0]}, which no steered checkpoint has; push to another repository"
        )
    # An earlier push may have left a file, for example a shard. A loader must not find it.
    steps += [Step(name, "delete", target.files[name].size, None) for name in extra]
    return tuple(sorted(steps, key=lambda step: step.name))


def _step(file: PushedFile, base: HubBase | None, target: Target) -> Step:
    remote = target.files.get(file.name)
    if remote is not None and file.is_in(remote):
        return Step(file.name, "keep", file.size, file)
    copied_from = None if base is None else base.large.get(file.sha256)
    return Step(file.name, "upload" if copied_from is None else "copy", file.size, file, copied_from)
