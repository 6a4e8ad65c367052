"""A push to the Hub: one commit, private unless it is asked for otherwise, and compared with what was meant.

The base's shards are not uploaded where the Hub can copy them from the base's repository: the manifest knows their
sha256, and the Hub knows what it holds. Nothing in the local directory is changed; the card that names the repository
and what was measured, and the manifest that lists this card, are made in memory.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    FileDuplicationError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of httpx or its successor, whichever the client uses
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import disable_progress_bars, validate_repo_id  # type: ignore[attr-defined]

import mllmeraser
from mllmeraser.console import console
from mllmeraser.errors import InputError, MllmEraserError, VerificationError
from mllmeraser.exporter import manifest as manifests
from mllmeraser.exporter.card import Gated, Publication, render_published
from mllmeraser.exporter.card_results import Comparison, read_comparisons
from mllmeraser.exporter.checks import one_line
from mllmeraser.exporter.hub_plan import HubBase, PushedFile, Step, Target, make_steps, model_tag
from mllmeraser.exporter.licence import read_licence
from mllmeraser.exporter.listing import CARD, MANIFEST
from mllmeraser.exporter.onnx.api import is_onnx_export, verify_onnx
from mllmeraser.exporter.signing import SIGNATURE
from mllmeraser.exporter.verify import verify

SCHEMA = 1
_TERMS = re.compile(r"extra_gated_\w+")
_RESUME = "no half of it is visible; run the same command again to go on"


@dataclass(frozen=True)
class Push:
    """What was pushed, or would be."""

    repo_id: str
    revision: str | None  # the commit; None for a dry run
    tag: str
    private: bool
    gated: Gated
    base: str | None  # org/name@commit
    steps: tuple[Step, ...]
    warnings: tuple[str, ...]

    @property
    def dry_run(self) -> bool:
        """Whether nothing was written."""
        return self.revision is None

    def size(self, action: str) -> int:
        """The bytes of all files of which this becomes."""
        return sum(step.size for step in self.steps if step.action == action)

    def document(self) -> dict[str, object]:
        """The JSON document of ``push --json`` (``docs/json.md``)."""
        return {
            "schema": SCHEMA,
            "repo_id": self.repo_id,
            "revision": self.revision,
            "tag": self.tag,
            "private": self.private,
            "gated": self.gated,
            "dry_run": self.dry_run,
            "base": self.base,
            "copied_bytes": self.size("copy"),
            "uploaded_bytes": self.size("upload"),
            "files": [{"name": step.name, "action": step.action, "bytes": step.size} for step in self.steps],
        }

    def lines(self) -> list[str]:
        """For a person: every file, what becomes of it, and who can see it."""
        rows = [f"{step.action:6}  {step.size:>15,}  {step.name}" for step in self.steps]
        gate = "" if not self.gated else f", asks for access ({self.gated})"
        verb = "would be pushed" if self.dry_run else f"pushed as {self.revision}, tag {self.tag}"
        copied = f"{self.size('copy'):,} copied by the Hub from {self.base or 'no base'}"
        return [
            *rows,
            f"{self.size('upload'):,} bytes uploaded, {copied}",
            f"{self.repo_id}: {verb}; {'private' if self.private else 'PUBLIC'}{gate}",
        ]


def push(
    directory: Path, repo_id: str, *, public: bool = False, results: Path | None = None, dry_run: bool = False
) -> Push:
    """Bring an exported directory to a repository of the Hub, in one commit.

    Files of the base that the Hub holds are copied there; licence and gate of the base are carried over. The new
    repository is private, and made public last of all, when its hashes have been compared.

    Args:
        repo_id: ``org/name``; made if there is none, and otherwise empty or of an earlier push.
        public: let everybody see it.
        results: of ``evaluate``; base and steered checkpoint are compared on the card.
        dry_run: look up everything, write nothing.

    Raises:
        VerificationError: the directory breaks a promise, or the Hub holds other bytes afterwards.
        InputError: the repository, its base or ``results`` cannot be used like this; nothing was written.
        MllmEraserError: the Hub could not be reached, or refused; the same call goes on.
    """
    _check_repo_id(repo_id)
    comparisons = [] if results is None else read_comparisons(results)
    manifest = _verified(directory)
    if not console.is_terminal or console.quiet:
        disable_progress_bars()
    api = HfApi(library_name="mllmeraser", library_version=mllmeraser.__version__)
    with _hub_errors(repo_id, "nothing was written"):
        base, target = _look_up_base(api, manifest), _look_up_target(api, repo_id)
    warnings = _check_visibility(manifest, base, target, public)
    tag = model_tag(manifest)
    gated = target.gated or (base.gated if base is not None else False)
    publication = Publication(repo_id, tag, gated, {} if base is None else base.terms)
    files = _files(directory, manifest, publication, comparisons)
    steps = make_steps(files, base, target)
    revision = None
    if not dry_run:
        with _hub_errors(repo_id, _RESUME):
            revision = _carry_out(api, files, steps, base, target, publication, public)
    named = None if base is None else f"{base.repo_id}@{base.revision}"
    return Push(repo_id, revision, tag, target.private and not public, gated, named, steps, tuple(warnings))


def _check_repo_id(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"{repo_id}: {one_line(error)}; give org/name") from None
    if "/" not in repo_id:
        raise InputError(f"{repo_id}: whose? give org/name, or your own name before the slash")


def _verified(directory: Path) -> dict[str, Any]:
    """The manifest of a directory that keeps its promises."""
    onnx = is_onnx_export(directory)
    checked = (verify_onnx if onnx else verify)(directory)
    if failed := next((check for check in checked.checks if not check.ok), None):
        raise VerificationError(f"{directory}: {failed.name}: {failed.detail}; not pushed, export it again")
    found: dict[str, Any] = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    return found


def _look_up_base(api: HfApi, manifest: Mapping[str, Any]) -> HubBase | None:
    """None: the base was a local directory, or its repository or commit is not to be found any more."""
    repo_id, revision = manifest["base"]["repo_id"], manifest["base"]["revision"]
    if repo_id is None or revision is None:
        return None
    try:
        info = api.model_info(repo_id)
        files = [entry for entry in api.list_repo_tree(repo_id, revision=revision) if isinstance(entry, RepoFile)]
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return None
    card = {} if info.card_data is None else info.card_data.to_dict()
    return HubBase(
        repo_id,
        revision,
        private=bool(info.private),
        gated=info.gated or False,
        terms={key: value for key, value in card.items() if _TERMS.fullmatch(key)},
        # The Hub copies between repositories what it holds in Xet, and nothing else.
        large={file.lfs.sha256: file.path for file in files if file.lfs is not None and file.xet_hash is not None},
    )


def _look_up_target(api: HfApi, repo_id: str) -> Target:
    try:
        info = api.model_info(repo_id)
    except RepositoryNotFoundError:
        return Target(repo_id)
    return Target(
        repo_id, info.sha, bool(info.private), info.gated or False, _tree(api, repo_id, info.sha) if info.sha else {}
    )


def _tree(api: HfApi, repo_id: str, revision: str) -> dict[str, RepoFile]:
    entries = api.list_repo_tree(repo_id, revision=revision, recursive=True)
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _check_visibility(manifest: Mapping[str, Any], base: HubBase | None, target: Target, public: bool) -> list[str]:
    """What is to be said of it.

    Raises:
        InputError: something private would become visible.
    """
    if not target.private and not public:
        raise InputError(
            f"{target.repo_id}: exists and is public; push to another repository, or, if everybody may see it, --public"
        )
    known = manifest["base"]["repo_id"]
    if base is None and known is not None:
        if public:
            raise InputError(f"--public: the base {known} cannot be found, nor who may see it; push without --public")
        return [f"the base {known} cannot be found on the Hub: nothing is copied, and no gate carried over"]
    if base is None:
        return ["the base was a local directory: nothing is copied, and no gate of a repository carried over"]
    if public and base.private:
        raise InputError(f"--public: the base {base.repo_id} is private; push without --public")
    return []


def _files(
    directory: Path, manifest: dict[str, Any], publication: Publication, comparisons: Sequence[Comparison]
) -> list[PushedFile]:
    """Every file of the repository: those of the directory, but for card and manifest, which are made anew."""
    signed, onnx = (directory / SIGNATURE).is_file(), manifest.get("format") == "onnx"
    if comparisons and (signed or onnx):
        reason = "signed, and another card would break the signature" if signed else "of graphs, whose card is short"
        raise InputError(f"--results: {directory} is {reason}; push without it")
    files = [
        PushedFile(name, entry["bytes"], entry["sha256"], directory / name)
        for name, entry in manifest["files"].items()
        if name != CARD or signed
    ]
    if signed:
        return [*files, *(_held(name, (directory / name).read_bytes()) for name in (MANIFEST, SIGNATURE))]
    if onnx:
        written = _with_terms((directory / CARD).read_text(encoding="utf-8"), publication.terms)
    else:
        written = render_published(manifest, read_licence(directory.resolve()), publication, comparisons)
    card = _held(CARD, written.encode())
    listed = {**manifest["files"][CARD], "bytes": card.size, "sha256": card.sha256}
    rewritten = manifests.sealed({**manifest, "files": {**manifest["files"], CARD: listed}})
    return [*files, card, _held(MANIFEST, rewritten)]


def _with_terms(text: str, terms: Mapping[str, Any]) -> str:
    """A card whose front matter also holds the terms of the base's gate."""
    if not terms:
        return text
    card = ModelCard(text)
    for key, value in terms.items():
        card.data[key] = value
    return str(card)


def _held(name: str, data: bytes) -> PushedFile:
    return PushedFile(name, len(data), hashlib.sha256(data).hexdigest(), data)


def _carry_out(
    api: HfApi,
    files: Sequence[PushedFile],
    steps: Sequence[Step],
    base: HubBase | None,
    target: Target,
    publication: Publication,
    public: bool,
) -> str:
    """The commit, when it holds what was meant."""
    repo_id = target.repo_id
    try:
        if target.head is None:
            api.create_repo(repo_id, private=True)  # an error if it exists meanwhile, and may be public
        if publication.gated and not target.gated:
            api.update_repo_settings(repo_id, gated=publication.gated)
        revision = _commit(api, steps, base, repo_id, target.head or str(api.model_info(repo_id).sha))
    except KeyboardInterrupt:
        console.print(f"{repo_id}: it may exist now, empty and private; {_RESUME}", soft_wrap=True)
        raise
    _compare(files, _tree(api, repo_id, revision), f"{repo_id}@{revision}")
    api.create_tag(repo_id, tag=publication.tag, revision=revision, exist_ok=True)
    if public and target.private:
        api.update_repo_settings(repo_id, private=False)
    return revision


def _commit(api: HfApi, steps: Sequence[Step], base: HubBase | None, repo_id: str, head: str) -> str:
    """All steps in one commit; the id of the commit that holds them, which is the present one if nothing is to do."""

    def commit(copying_from: HubBase | None) -> str:
        operations = [operation for step in steps if (operation := step.operation(copying_from)) is not None]
        if not operations:
            return head
        message = f"Steered checkpoint, by mllmeraser {mllmeraser.__version__}"
        made = api.create_commit(repo_id, operations, commit_message=message, parent_commit=head)
        return str(made.oid)

    try:
        return commit(base)
    except FileDuplicationError as error:  # for example between storage regions
        why = f"the Hub cannot copy the base's files ({one_line(error)}); they are uploaded"
        console.print(why, markup=False, soft_wrap=True)
        return commit(None)


def _compare(files: Sequence[PushedFile], remote: Mapping[str, RepoFile], where: str) -> None:
    for file in files:
        if file.name not in remote or not file.is_in(remote[file.name]):
            found = "is missing" if file.name not in remote else "is not what was sent"
            raise VerificationError(f"{where}: {file.name} {found}; nobody should load it, push again or delete it")


@contextmanager
def _hub_errors(repo_id: str, left: str) -> Iterator[None]:
    """Whatever the client raises, in one line, without the signatures that addresses of uploads carry."""
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        hint = {401: "log in with 'hf auth login'", 403: "is your token allowed to write there?"}.get(status, left)
        raise MllmEraserError(f"{repo_id}: the Hub answered: {_plain(error)}; {hint}") from error
    except (HTTPError, FileDuplicationError, OSError, RuntimeError, ValueError) as error:
        causes = dict.fromkeys(_plain(part) for part in (error, error.__cause__) if part is not None)
        raise MllmEraserError(f"{repo_id}: {': '.join(causes)}; {left}") from error


def _plain(error: BaseException) -> str:
    return re.sub(r"\?\S+", "", one_line(error))
