"""One checkpoint of all requests that are active; this needs no torch."""

from __future__ import annotations

from pathlib import Path

from mllmeraser.disk.hashing import sha256_of
from mllmeraser.disk.link import Link
from mllmeraser.errors import InputError, VerificationError
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.names import MANIFEST
from mllmeraser.exporter.plan import ExportPlan
from mllmeraser.exporter.signing import sign, signer_sha256
from mllmeraser.removals.entries import Exported, InExport
from mllmeraser.removals.figures import gate_figures
from mllmeraser.removals.folder import Folder
from mllmeraser.removals.state import State


def export_active(
    folder: Folder,
    state: State,
    base: str | Path,
    output: Path,
    *,
    link: Link,
    overwrite: bool,
    dry_run: bool,
    hash_weights: bool,
    private_key: Path | None,
) -> tuple[ExportPlan, Exported | None]:
    """Write a checkpoint with every request that is active; without records, and without loading the base.

    Returns:
        what was done, and the entry for it (null for a dry run).

    Raises:
        InputError: no request is active, or base, output or key cannot be used.
        VerificationError: a bundle is not the one that was computed.
    """
    active = [request for request in state.requests.values() if request.wants_export]
    if not active:
        raise InputError("no request is computed and active, so there is nothing to export: the base itself will do")
    for request in active:
        path = folder.bundle(request.id)
        if request.computed is None or not path.is_file() or sha256_of(path) != request.computed.bundle_sha256:
            raise VerificationError(f"{path}: not the bundle that was computed; compute {request.id} again")
    signer = None if private_key is None else signer_sha256(private_key)
    plan = export(
        base,
        [folder.bundle(request.id) for request in active],
        output,
        link=link,
        overwrite=overwrite,
        dry_run=dry_run,
        hash_weights=hash_weights,
        shares=state.shares,
        common=True,
    )
    if dry_run:
        return plan, None
    if private_key is not None:
        sign(output, private_key)
    figures = [(bundle.metadata.requests[0].id, *gate_figures(bundle)) for bundle in plan.bundles]
    rows = tuple(InExport(id=id_, recognised=opens, false_fires=misfires) for id_, opens, misfires in figures)
    manifest = sha256_of(output / MANIFEST)
    return plan, Exported(manifest_sha256=manifest, requests=rows, shares=state.shares, signed_by=signer)
