"""The bundles of the requests that wait, one after another; each needs its own records and the retain set only.

The first places the landmarks of what must stay, and the others take them, whatever their retain sets are: so that a
checkpoint holds them once.

A run that is killed goes on: a finished request stands in the ledger, and the passes of the one that was under way lie
in ``work/``, which the last request removes. Before a bundle is kept, its gate is read on the general bank: a gate that
opens there would close more than a person, whatever the request's words look like.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mllmeraser.bundle.bundle import Bundle, save_bundle
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.errors import InputError, MllmEraserError, QualityGateError, VerificationError
from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.inference.source import read_config, resolve
from mllmeraser.judging.deriving import with_facts
from mllmeraser.modeling_patches.format_mllmeraser import CONFIG
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record
from mllmeraser.removals.breadth import ground_of_gate
from mllmeraser.removals.claims.bank import general
from mllmeraser.removals.entries import BaseFacts, Computed, Decided, Figures, Share
from mllmeraser.removals.figures import gate_figures, share_of
from mllmeraser.removals.folder import Folder
from mllmeraser.removals.state import Request, State
from mllmeraser.steering.compute import compute as compute_bundle
from mllmeraser.steering.interference import interference
from mllmeraser.steering.kept import KeptLandmarks
from mllmeraser.steering.needs import needs
from mllmeraser.steering.recipe import Recipe, make_recipe
from mllmeraser.steering.trials import TRIED

Note = Callable[[str, Computed | Decided], bool]  # adds an entry, unless the request was withdrawn or erased meanwhile


def compute_waiting(
    folder: Folder,
    state: State,
    note: Note,
    base: str | Path,
    retain: Path,
    ids: Sequence[str],
    *,
    recipe: Path | None,
    device: str,
    dtype: str,
    batch_size: int,
    seed: int,
) -> Iterator[tuple[str, Computed | Decided | MllmEraserError | None]]:
    """Compute the bundles of these requests, by default of all that wait.

    Yields:
        each request with what became of it: its bundle, a refusal, an error that concerns this request alone, or null
        if it was withdrawn or erased meanwhile.

    Raises:
        InputError: base, retain set, recipe or an id cannot be used.
        MllmEraserError: another run computes in this ledger, or memory or disk does not suffice.
    """
    wanted = list(_wanted(state, ids))
    if not wanted:
        return
    source, kept = resolve(base), read_records(retain)
    chosen = make_recipe(str(read_config(source.path)["model_type"]), {}, recipe)
    with _alone(folder):
        first = folder.read(wanted[0].id, wanted[0].received.commitment)
        needs(source, first, kept, chosen, device, dtype).check()
        folder.work.mkdir(mode=0o700, exist_ok=True)
        checkpoint = load(source, device=device, dtype=dtype, work_dir=folder.work, batch_size=batch_size)
        landmarks = KeptLandmarks(folder.landmarks(sha256_of(source.path / CONFIG)))
        for request in wanted:
            try:
                records = with_facts(folder.read(request.id, request.received.commitment))
                facts = _compute(folder, checkpoint, request, records, kept, chosen, landmarks, seed)
            except (InputError, QualityGateError, VerificationError) as error:
                yield request.id, error
                continue
            yield request.id, facts if note(request.id, facts) else None
        shutil.rmtree(folder.work)


def _wanted(state: State, ids: Sequence[str]) -> Iterable[Request]:
    if not ids:
        return [request for request in state.requests.values() if request.next == "compute"]
    requests = [state.requests[id_] for id_ in dict.fromkeys(ids)]
    for request in requests:
        if request.erased or request.status not in ("waiting", "computed", "active"):
            why = "its records are erased" if request.erased else f"it is {request.status}"
            raise InputError(f"{request.id}: cannot be computed: {why}")
    return requests


@contextmanager
def _alone(folder: Folder) -> Iterator[None]:
    lock = FileLock(folder.root / ".ledger.compute.lock", timeout=0, mode=0o600)
    try:
        lock.acquire()
    except Timeout:
        raise MllmEraserError(f"{folder.root}: another run computes in this ledger; wait for its end") from None
    try:
        yield
    finally:
        lock.release()


def _compute(
    folder: Folder,
    checkpoint: Checkpoint,
    request: Request,
    forget: Sequence[Record],
    retain: Sequence[Record],
    recipe: Recipe,
    landmarks: KeptLandmarks,
    seed: int,
) -> Computed | Decided:
    """The facts of a bundle that was written; or the decision that its gate opens on too much."""
    done = compute_bundle(checkpoint, forget, retain, recipe, request_id=request.id, seed=seed, kept=landmarks)
    bundle = done.bundle
    cell = interference(checkpoint, [bundle], [general()]).rows[0][0]
    ground = ground_of_gate(cell.opens, cell.n)
    decided = request.decided
    assert decided is not None
    if not ground.kept and decided.override is None:
        return Decided(decision="refused", grounds=(*decided.grounds, ground), override=None)
    path = folder.bundle(request.id)
    save_bundle(bundle, path)
    base = bundle.metadata.base
    return Computed(
        bundle_sha256=sha256_of(path),
        bundle_bytes=path.stat().st_size,
        base=BaseFacts(repo_id=base.repo_id, revision=base.revision, config_sha256=base.config_sha256),
        forget=len(forget),
        retain=len(retain),
        seed=seed,
        figures=figures_of(bundle, Share(share=cell.opens, n=cell.n)),
    )


def figures_of(bundle: Bundle, general: Share) -> Figures:
    """The held-out figures of a bundle."""
    request, facts = bundle.metadata.requests[0], bundle.metadata.method.calibration
    asked = min(TRIED, request.n_forget)
    recognised, false_fires = gate_figures(bundle)
    return Figures(
        recognised=recognised,
        false_fires=false_fires,
        refused=share_of(facts.get("refused"), asked),
        untold=share_of(facts.get("forgotten"), asked),
        general=general,
    )
