"""The direction u in which the forget set answers 1 while the retain set is left alone.

Rows of F_f (n_f, m) and F_r (n_r, m) are features of states (the states themselves, or kernel features), and
C = F_rᵀF_r (m, m) is the uncentred second moment of retain. Three forms of "left alone":

* ``ratio:ρ`` — the paper's: Q = the ⌊ρm⌋ eigenvectors of C of least energy,
  u = Q (QᵀF_fᵀF_fQ + γI)⁻¹ QᵀF_fᵀ1. Because every target of the paper's W is the same direction r, its dense
  W = D H_fᵀP (P H_f H_fᵀ P + γP)⁺ P is exactly r uᵀ.
* ``energy:t`` — the same with Q = all least directions that together hold at most the share t of tr C.
* ``soft:α`` — no projector: u = (F_fᵀF_f/n_f + αC/n_r + γI)⁻¹ mean(F_f); α → ∞ recovers it.

γ is ``ridge`` itself (absolute) or ``ridge`` times the mean diagonal of the matrix it is added to (relative). fp64.
Source: MLLMEraser, arXiv 2510.04217, stage 2; rank-one form and soft null space ours.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal, lapack
from torch import Tensor

from mllmeraser.errors import InputError
from mllmeraser.steering.forms import NullSpace, RidgeScale


def solve(
    forget: Tensor,
    retain_moment: Tensor,
    n_retain: int,
    null_space: NullSpace,
    ridge: float,
    ridge_scale: RidgeScale,
) -> Tensor:
    """u (m,), fp64, for forget features (n_f, m) and the retain second moment C (m, m).

    Raises:
        InputError: the null space is empty (ρm < 1), or the system is singular (γ = 0 on dependent features).
    """
    forget, moment = forget.double(), retain_moment.double()
    if null_space.form == "soft":
        system = forget.T @ forget / len(forget) + null_space.value * moment / n_retain
        return _ridge_solve(system, forget.mean(dim=0), ridge, ridge_scale)
    least = _LeastDirections(moment, null_space)
    projected = least.coordinates(forget)  # (n_f, k)
    ones = torch.ones(len(forget), dtype=torch.float64)
    if len(forget) < projected.shape[1]:
        # Dual form, (n_f, n_f) instead of (k, k): Q Gᵀ (G Gᵀ + γI)⁻¹ 1 with G = F_f Q.
        gamma = ridge if ridge_scale == "absolute" else ridge * float(projected.pow(2).sum(dim=0).mean())
        return least.vector(projected.T @ _ridge_solve(projected @ projected.T, ones, gamma, "absolute"))
    return least.vector(_ridge_solve(projected.T @ projected, projected.T @ ones, ridge, ridge_scale))


class _LeastDirections:
    """Q (m, k), the directions of least energy, without ever being formed.

    C = V T Vᵀ with T tridiagonal and V a product of m − 1 reflections, and Q = VZ with Z (m, k) the least eigenvectors
    of T alone (LAPACK's sytrd and stemr). Two thirds of a full decomposition's work make Q's other columns and put
    V and Z together; all that is needed of Q here is what it does to the few rows of the forget set.
    """

    def __init__(self, moment: Tensor, null_space: NullSpace) -> None:
        m = len(moment)
        C = moment.numpy().T  # column-major, and symmetric
        reduced, diagonal, beside, self._scales, _ = lapack.dsytrd(C, lower=1, lwork=int(lapack.dsytrd_lwork(m, 1)[0]))
        self._reflections = np.asfortranarray(reduced[1:, :-1])  # below the diagonal, as of a QR of m − 1
        if null_space.form == "ratio":
            kept = int(null_space.value * m)
        else:
            energies = eigh_tridiagonal(diagonal, beside, eigvals_only=True).clip(min=0)  # ascending
            kept = int((energies.cumsum() / energies.sum() <= null_space.value).sum())
        if kept == 0:
            raise InputError(f"null space {null_space} of {m} features is empty; ask for a larger share")
        _, self._least = eigh_tridiagonal(
            diagonal, beside, select="i", select_range=(0, kept - 1), lapack_driver="stemr"
        )

    def coordinates(self, rows: Tensor) -> Tensor:
        """Rows (n, m) in the basis Q: (n, k)."""
        turned = self._turn(rows.numpy().T, "T")  # Vᵀ rowsᵀ
        return torch.from_numpy((self._least.T @ turned).T)

    def vector(self, coordinates: Tensor) -> Tensor:
        """Q x (m,) for x (k,)."""
        return torch.from_numpy(self._turn((self._least @ coordinates.numpy())[:, None], "N")[:, 0].copy())

    def _turn(self, columns: NDArray[np.float64], side: str) -> NDArray[np.float64]:
        """V or (``T``) Vᵀ times columns (m, n); the first row stays as it is."""
        below = np.asfortranarray(columns[1:])
        _, work, _ = lapack.dormqr("L", side, self._reflections, self._scales, below, -1)
        turned, _, _ = lapack.dormqr("L", side, self._reflections, self._scales, below, int(work[0]))
        return np.concatenate([columns[:1], turned])


def _ridge_solve(system: Tensor, target: Tensor, ridge: float, scale: RidgeScale) -> Tensor:
    gamma = ridge if scale == "absolute" else ridge * float(system.diagonal().mean())
    regular = system + gamma * torch.eye(len(system), dtype=system.dtype)
    factor, failed = torch.linalg.cholesky_ex(regular)
    if int(failed):
        raise InputError("the gate's system is singular; ask for a larger --ridge")
    return torch.cholesky_solve(target[:, None], factor)[:, 0]
