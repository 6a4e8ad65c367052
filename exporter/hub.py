"""Push a checkpoint to the Hub: one commit, private by default, and compared with the directory afterwards.

The Hub copies the base's shards from the base's repository, if it holds them: the manifest knows their sha256, and the
Hub knows what it holds. The local directory does not change. Two files are made anew, in memory: the card, which names
the repository and the results, and the manifest, which lists the card.
"""

from __future__ import annotations

import hashlib
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
from mllmeraser.errors import InputError, MllmEraserError, VerificationError, first_line
from mllmeraser.exporter import manifest as manifests
from mllmeraser.exporter.card import Gated, Publication, render_published
from mllmeraser.exporter.card_results import Comparison, read_comparisons
from mllmeraser.exporter.hub_plan import HubBase, PushedFile, Step, Target, make_steps, model_tag
from mllmeraser.exporter.licence import read_licence
from mllmeraser.exporter.names import CARD, MANIFEST, SIGNATURE
from mllmeraser.exporter.opened import Opened
from mllmeraser.exporter.verify import verify_opened
from mllmeraser.modeling_patches.format_mllmeraser import FOLLOWED

SCHEMA = 1
_TERMS = re.compile(r"extra_gated_\w+")
_RESUME = "no partial commit is visible; run the same command again to go on"


@dataclass(frozen=True)
class Push:
    """What was pushed, or would be pushed."""

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
        """The bytes of all files with this action."""
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
        """For a person: every file and its action, and who can see the repository."""
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
    directory: str | Path,
    repo_id: str,
    *,
    public: bool = False,
    tells_whom_it_forgets: bool = False,
    results: str | Path | None = None,
    dry_run: bool = False,
) -> Push:
    """Push an exported directory to a repository of the Hub, in one commit, private by default.

    The Hub copies the files of the base that it holds. Licence and access gate of the base are carried over. Afterwards
    every file on the Hub is compared with the directory (``docs/hub.md``). The directory does not change.

    Args:
        directory: what ``export``, ``export_onnx`` or ``onnx_steer`` wrote; it is verified first.
        repo_id: ``org/name``; made if there is none, and otherwise empty or of an earlier push.
        public: let everybody see it; done last of all, when the hashes have been compared.
        tells_whom_it_forgets: needed for ``public``: the caller knows that whoever has base and checkpoint can test
            whom it forgets.
        results: the results of :func:`evaluate`; base and steered checkpoint are compared on the card.
        dry_run: look up everything, write nothing.

    Raises:
        VerificationError: the directory breaks a promise, or the Hub holds other bytes afterwards.
        InputError: the repository, its base or ``results`` cannot be used like this; nothing was written.
        MllmEraserError: the Hub could not be reached, or refused; the same call goes on.

    Example::

        pushed = mllmeraser.push("steered", "org/name-steered", dry_run=True)
        pushed.revision is None, [step.name for step in pushed.steps if step.action == "upload"]
    """
    _check_repo_id(repo_id)
    if public and not tells_whom_it_forgets:
        raise InputError(
            "--public: whoever has the base and this checkpoint can test whether a name or a picture is one to forget "
            "(docs/limits.md); if everybody may, add --i-know-this-tells-whom-it-forgets"
        )
    comparisons = [] if results is None else read_comparisons(Path(results))
    opened = Opened(Path(directory))
    manifest = _verified(opened)
    if not console.is_terminal or console.quiet:
        disable_progress_bars()
    api = HfApi(library_name="mllmeraser", library_version=mllmeraser.__version__)
    with _hub_errors(repo_id, "nothing was written"):
        base, target = _look_up_base(api, manifest), _look_up_target(api, repo_id)
    warnings = _check_visibility(manifest, base, target, public)
    tag = model_tag(manifest)
    gated = target.gated or (base.gated if base is not None else False)
    publication = Publication(repo_id, tag, gated, {} if base is None else base.terms)
    files = _files(opened, publication, comparisons)
    steps = make_steps(files, base, target)
    warnings += [
        f"{repo_id} holds {step.name}: transformers {FOLLOWED[step.name]}; this push deletes it, load a pinned revision"
        for step in steps
        if step.action == "delete" and step.name in FOLLOWED
    ]
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
        raise InputError(f"{repo_id}: {first_line(error)}; give org/name") from None
    if "/" not in repo_id:
        raise InputError(f"{repo_id}: no owner; give org/name, or your own name before the slash")


def _verified(opened: Opened) -> dict[str, Any]:
    """The manifest of a directory that keeps its promises.

    Raises:
        VerificationError: a check fails.
    """
    if failed := next((check for check in verify_opened(opened).checks if not check.ok), None):
        raise VerificationError(f"{opened.directory}: {failed.name}: {failed.detail}; not pushed, export it again")
    return opened.manifest


def _look_up_base(api: HfApi, manifest: Mapping[str, Any]) -> HubBase | None:
    """The base on the Hub. None: it was a local directory, or its repository or commit cannot be found."""
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
        # The Hub copies between repositories only what it holds in Xet.
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
    """The warnings about who will see what.

    Raises:
        InputError: something private would become visible.
    """
    if not target.private and not public:
        raise InputError(
            f"{target.repo_id}: exists and is public; push to another repository, or add --public if everybody may see "
            "the model"
        )
    known = manifest["base"]["repo_id"]
    if base is None and known is not None:
        if public:
            raise InputError(
                f"--public: the base {known} cannot be found, so nobody knows who may see it; push without --public"
            )
        return [f"the base {known} cannot be found on the Hub: every file is uploaded, and no access gate is set"]
    if base is None:
        return ["the base was a local directory: every file is uploaded, and no access gate is set"]
    if public and base.private:
        raise InputError(f"--public: the base {base.repo_id} is private; push without --public")
    return []


def _files(opened: Opened, publication: Publication, comparisons: Sequence[Comparison]) -> list[PushedFile]:
    """Every file of the repository: those of the directory, with a new card and manifest unless it is signed."""
    directory, manifest = opened.directory, opened.manifest
    signed, onnx = (directory / SIGNATURE).is_file(), opened.format == "onnx"
    if comparisons and (signed or onnx):
        reason = (
            "is signed, and a new card would break the signature"
            if signed
            else "holds ONNX graphs, whose card shows no results"
        )
        raise InputError(f"--results: {directory} {reason}; push without --results")
    files = [
        PushedFile(name, entry["bytes"], entry["sha256"], directory / name)
        for name, entry in manifest["files"].items()
        if name != CARD or signed
    ]
    if signed:
        return [*files, *(_held(name, opened.content(name)) for name in (MANIFEST, SIGNATURE))]
    if onnx:
        written = _with_terms(opened.content(CARD).decode("utf-8"), publication.terms)
    else:
        written = render_published(manifest, read_licence(directory.resolve()), publication, comparisons)
    card = _held(CARD, written.encode())
    listed = {**manifest["files"][CARD], "bytes": card.size, "sha256": card.sha256}
    rewritten = manifests.sealed({**manifest, "files": {**manifest["files"], CARD: listed}})
    return [*files, card, _held(MANIFEST, rewritten)]


def _with_terms(text: str, terms: Mapping[str, Any]) -> str:
    """The card with the terms of the base's access gate added to its front matter."""
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
    """Make the commit, and compare it with the files; the commit's id.

    Raises:
        VerificationError: the Hub holds other bytes.
    """
    repo_id = target.repo_id
    try:
        if target.head is None:
            api.create_repo(repo_id, private=True)  # fails if somebody has made it meanwhile: it may be public
        if publication.gated and not target.gated:
            api.update_repo_settings(repo_id, gated=publication.gated)
        revision = _commit(api, steps, base, repo_id, target.head or str(api.model_info(repo_id).sha))
    except KeyboardInterrupt:
        console.print(f"{repo_id}: may exist now, empty and private; {_RESUME}", soft_wrap=True)
        raise
    _compare(files, _tree(api, repo_id, revision), f"{repo_id}@{revision}")
    api.create_tag(repo_id, tag=publication.tag, revision=revision, exist_ok=True)
    if public and target.private:
        api.update_repo_settings(repo_id, private=False)
    return revision


def _commit(api: HfApi, steps: Sequence[Step], base: HubBase | None, repo_id: str, head: str) -> str:
    """All steps in one commit; its id, or ``head`` if there is nothing to do."""

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
        why = f"the Hub cannot copy the base's files ({first_line(error)}); uploading them"
        console.print(why, markup=False, soft_wrap=True)
        return commit(None)


def _compare(files: Sequence[PushedFile], remote: Mapping[str, RepoFile], where: str) -> None:
    for file in files:
        if file.name not in remote or not file.is_in(remote[file.name]):
            found = "is missing" if file.name not in remote else "is not what was sent"
            raise VerificationError(
                f"{where}: {file.name} {found}; nobody should load this commit: push again, or delete it"
            )


@contextmanager
def _hub_errors(repo_id: str, left: str) -> Iterator[None]:
    """Turn an error of the Hub's client into one line, without the signatures in the addresses of uploads."""
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
    return re.sub(r"\?\S+", "", first_line(error))
