"""The held-out figures that a bundle says of its gates; read without torch."""

from __future__ import annotations

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.removals.entries import Share


def gate_figures(bundle: Bundle) -> tuple[Share | None, Share | None]:
    """On how many forget and retain records the gate opens at its threshold; null where nothing was held out.

    Of several gates the one that opens furthest counts. A record counts once, with however many variants.
    """
    request = bundle.metadata.requests[0]
    rows = list(request.statistics.values())
    opens = [row.true_fire_heldout for row in rows if row.true_fire_heldout is not None]
    misfires = [row.false_fire_heldout for row in rows if row.false_fire_heldout is not None]
    retained = request.n_retain if request.held_out is None else request.held_out.retain
    return share_of(max(opens, default=None), request.n_forget), share_of(max(misfires, default=None), retained)


def share_of(found: object, n: int) -> Share | None:
    """A share of ``n``, if one was found."""
    return Share(share=float(found), n=n) if isinstance(found, int | float) else None
