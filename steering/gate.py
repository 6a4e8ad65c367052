"""The gate g(h) of one layer: about 1 on the forget set, about 0 on what must be kept.

g(h) = wᵀφ(z): z is the state h, or p random projections R h of it; :mod:`mllmeraser.steering.features` makes the
features φ(z), :mod:`mllmeraser.steering.null_space` the weights w. The steering then passes g through a shape
(:class:`mllmeraser.steering.forms.GateShape`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.bundle.metadata import tensor_name
from mllmeraser.inference.states import PIECE, States, pieces, rows_at
from mllmeraser.steering.features import Landmarks, distances, kernel, place_centres, projected, random_signs
from mllmeraser.steering.folds import Fold
from mllmeraser.steering.forms import Fit, Kind, NullSpace, RidgeScale
from mllmeraser.steering.null_space import solve, solve_soft
from mllmeraser.steering.recipe import Recipe


@dataclass(frozen=True)
class GateRecipe:
    """The settings of a gate, before any data."""

    kind: Kind
    null_space: NullSpace
    ridge: float
    ridge_scale: RidgeScale
    landmarks: int = 512
    bandwidth: float = 1.0
    seed: int = 0
    projections: int | None = None  # p; None: the gate reads the state itself
    fit: Fit = "end"

    @classmethod
    def of(cls, recipe: Recipe, projections: int | None, seed: int, **chosen: Any) -> GateRecipe:
        """The recipe's gate, with what calibration may choose."""
        return cls(
            kind=recipe.gate,
            ridge=recipe.ridge,
            ridge_scale=recipe.ridge_scale,
            landmarks=recipe.landmarks,
            projections=projections,
            seed=seed,
            **chosen,
        )


@dataclass(frozen=True)
class Gate:
    """A fitted gate: weights over what it reads (d or p,), or over kernel features (J,)."""

    weights: Tensor
    landmarks: Landmarks | None
    projection: Tensor | None = None  # R (p, d), int8

    def __call__(self, states: Tensor) -> Tensor:
        """g for states (n, d): (n,), fp64."""
        return readings([self], states)[:, 0]

    def with_landmarks(self, count: int) -> Gate:
        """The same gate with ``count`` landmarks: the further ones have weight 0. A linear gate has none."""
        further = count - len(self.weights)
        if self.landmarks is None or not further:
            return self
        centres = torch.cat([self.landmarks.centres, self.landmarks.centres[:1].expand(further, -1)])
        weights = torch.cat([self.weights, self.weights.new_zeros(further)])
        return Gate(weights, replace(self.landmarks, centres=centres), self.projection)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the bundle by leaf name, fp32 but for the int8 projection."""
        signs = {} if self.projection is None else {"projection": self.projection}
        if self.landmarks is None:
            return {"gate": self.weights.float(), **signs}
        return {
            **signs,
            "landmarks": self.landmarks.centres.float(),
            "weights": self.weights.float(),
            "bandwidth": torch.tensor(self.landmarks.bandwidth, dtype=torch.float32),
        }

    def values(self, states: States) -> Tensor:
        """g of every row (n,); states and features are never held all at once."""
        return torch.cat([self(piece) for piece in pieces(states)])


def readings(gates: Sequence[Gate], states: Tensor) -> Tensor:
    """g (n, len(gates)), fp64, of gates that were fitted together, for states (n, d)."""
    first = gates[0]
    if first.landmarks is None:
        read = projected(states.double(), first.projection)
        return read @ torch.stack([gate.weights for gate in gates], dim=1)
    squares = distances(projected(states.float(), first.projection), first.landmarks.centres)
    found = torch.empty(len(states), len(gates), dtype=torch.float64)
    of_bandwidth: dict[float, list[int]] = {}
    for i, gate in enumerate(gates):
        assert gate.landmarks is not None
        of_bandwidth.setdefault(gate.landmarks.bandwidth, []).append(i)
    for bandwidth, among in of_bandwidth.items():
        weights = torch.stack([gates[i].weights for i in among], dim=1).to(squares.dtype)
        found[:, among] = (kernel(squares, bandwidth) @ weights).double()  # as the checkpoint's layer sums
    return found


def gate_in(bundle: Bundle, request: int, layer: int) -> Gate:
    """The gate as it was fitted, read back from the tensors of a bundle."""

    def leaf(name: str) -> Tensor:
        return torch.from_numpy(bundle.tensors[tensor_name(request, layer, name)])

    form = bundle.metadata.gate
    projection = None if form.projection is None else leaf("projection")
    if form.kind == "linear":
        return Gate(leaf("gate").double(), None, projection)
    landmarks = Landmarks(leaf("landmarks"), float(leaf("bandwidth")))
    return Gate(leaf("weights").double(), landmarks, projection)


def fit_gate(
    forget: Tensor, retain: States, recipe: GateRecipe, positions: int = 1, kept: Tensor | None = None
) -> Gate:
    """Fit one gate on all records: :class:`GateFits` of one recipe."""
    return GateFits(forget, retain, [recipe], positions=positions, kept=kept).gates()[0]


class GateFits:
    """The gates of one layer, fitted on all records or on those outside some folds, after one pass over the states.

    All share their landmarks: these know where states lie, not which gate they open. The retain states of each fold are
    reduced to a second moment (m, m) per bandwidth, with m = d, p or J. A fold is left out by subtraction.

    Args:
        forget: states (n_f · positions, d); the rows of a record lie together, its last prompt token first.
        retain: states (n_r · kept_positions, d); the rows of a record lie together.
        recipes: they may differ in fit, bandwidth and null space.
        folds: each record is held out in exactly one; none: only gates on all records are asked for.
        kept: landmarks of what must stay (:class:`mllmeraser.steering.kept.KeptLandmarks`); None: they are placed here.

    Example:
        >>> fits = GateFits(forget, retain, recipes, folds)  # doctest: +SKIP
        >>> held_out = [fits.gates(without=[k]) for k in range(len(folds))]  # doctest: +SKIP
    """

    def __init__(
        self,
        forget: Tensor,
        retain: States,
        recipes: Sequence[GateRecipe],
        folds: Sequence[Fold] = (),
        positions: int = 1,
        kept_positions: int = 1,
        kept: Tensor | None = None,
    ) -> None:
        first = recipes[0]
        self.recipes, self.positions = recipes, positions
        self.signs = (
            None if first.projections is None else random_signs(first.projections, forget.shape[-1], first.seed)
        )
        self.lifts: dict[float, Landmarks] = {}
        if first.kind == "kernel":
            centres = place_centres(forget, retain, first.landmarks, first.seed, self.signs, kept)
            self.lifts = {recipe.bandwidth: centres.landmarks(recipe.bandwidth) for recipe in recipes}
        forget_rows = [fold.forget_rows(positions) for fold in folds] or [torch.ones(len(forget), dtype=torch.bool)]
        retain_rows = [fold.rows(kept_positions) for fold in folds] or [torch.ones(len(retain), dtype=torch.bool)]
        self.forget_rows = torch.stack(forget_rows)  # (folds, n_f · positions)
        self.retain_counts = torch.stack(retain_rows).sum(dim=1)  # (folds,)
        self.forgotten = self._features(forget)  # by bandwidth, (n_f · positions, m)
        self.moments = self._moments_of(retain, retain_rows)
        self._of_forget: dict[tuple[Fit, float], tuple[_ByFold, _ByFold]] = {}

    def gates(self, without: Sequence[int] = ()) -> list[Gate]:
        """One gate a recipe, fitted on all records but those of the folds ``without``.

        Raises:
            InputError: a null space is empty, or a system is singular.
        """
        found: dict[int, Gate] = {}
        folds = list(without)
        kept = int(self.retain_counts.sum() - self.retain_counts[folds].sum())
        moments = {share: moment.without(folds) for share, moment in self.moments.items()}
        for (fit, share, null_space), among in _grouped(self.recipes).items():
            first, rows = self.recipes[among[0]], self._rows(fit, folds)
            if null_space.form == "soft":
                gram, total = self._gram_and_sum(fit, share)
                of_forget = gram.without(folds), total.without(folds), int(rows.sum())
                weights = solve_soft(*of_forget, moments[share], kept, null_space.value, first.ridge, first.ridge_scale)
            else:
                phi = self.forgotten[share][rows]
                weights = solve(phi, moments[share], kept, null_space, first.ridge, first.ridge_scale)
            found |= dict.fromkeys(among, Gate(weights, self.lifts.get(share), self.signs))
        return [found[i] for i in range(len(self.recipes))]

    def _features(self, states: Tensor) -> dict[float, Tensor]:
        """φ by bandwidth; a linear gate has one φ, what it reads."""
        if not self.lifts:
            shares = {recipe.bandwidth for recipe in self.recipes}
            return dict.fromkeys(shares, projected(states.double(), self.signs))
        squares = distances(projected(states.float(), self.signs), next(iter(self.lifts.values())).centres)
        return {share: kernel(squares, landmarks.bandwidth) for share, landmarks in self.lifts.items()}

    def _moments_of(self, retain: States, rows_of_fold: Sequence[Tensor]) -> dict[float, _ByFold]:
        """C = F_rᵀF_r of each fold, by bandwidth."""
        found: dict[float, list[Tensor]] = {}
        for rows in rows_of_fold:
            of_fold: dict[float, Tensor] = {}
            for indices in rows.nonzero()[:, 0].split(PIECE):
                for share, phi in self._features(rows_at(retain, indices.tolist())).items():
                    of_fold[share] = of_fold.get(share, 0.0) + (phi.T @ phi).double()
            for share, moment in of_fold.items():
                found.setdefault(share, []).append(moment)
        return {share: _ByFold.of(moments) for share, moments in found.items()}

    def _rows(self, fit: Fit, without: list[int]) -> Tensor:
        """Which forget rows a fit takes, (n_f · positions,)."""
        rows = ~self.forget_rows[without].any(dim=0)
        return rows & (torch.arange(len(rows)) % self.positions == 0) if fit == "end" else rows

    def _gram_and_sum(self, fit: Fit, share: float) -> tuple[_ByFold, _ByFold]:
        """F_fᵀF_f (m, m) and F_fᵀ1 (m,) of each fold."""
        if (fit, share) not in self._of_forget:
            taken, phi = self._rows(fit, []), self.forgotten[share]
            parts = [phi[rows & taken] for rows in self.forget_rows]
            grams = [torch.stack([(p.T @ p).double() for p in part.split(PIECE)]).sum(dim=0) for part in parts]
            sums = [part.sum(dim=0, dtype=torch.float64) for part in parts]
            self._of_forget[fit, share] = _ByFold.of(grams), _ByFold.of(sums)
        return self._of_forget[fit, share]


@dataclass(frozen=True)
class _ByFold:
    """A sum over records, and its part of each fold; fp64."""

    parts: Sequence[Tensor]
    total: Tensor

    @classmethod
    def of(cls, parts: Sequence[Tensor]) -> _ByFold:
        total = parts[0].clone()
        for part in parts[1:]:
            total += part
        return cls(parts, total)

    def without(self, folds: Sequence[int]) -> Tensor:
        left = self.total.clone()
        for fold in folds:
            left -= self.parts[fold]
        return left


def _grouped(recipes: Sequence[GateRecipe]) -> dict[tuple[Fit, float, NullSpace], list[int]]:
    """The indices of recipes that have the same fit, bandwidth and null space."""
    groups: dict[tuple[Fit, float, NullSpace], list[int]] = {}
    for i, recipe in enumerate(recipes):
        groups.setdefault((recipe.fit, recipe.bandwidth, recipe.null_space), []).append(i)
    return groups
