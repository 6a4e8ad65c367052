"""The weights u of a gate: on the forget set uᵀf is about 1, and the retain set is left alone (about 0).

The rows of F_f (n_f, m) and F_r (n_r, m) are features: the states themselves, or kernel features. C = F_rᵀF_r (m, m) is
the uncentred second moment of the retain set. There are three ways to leave it alone:

* ``ratio:ρ``, the paper's: u = Q (QᵀF_fᵀF_fQ + γI)⁻¹ QᵀF_fᵀ1, where Q holds the ⌊ρm⌋ eigenvectors of C of least
  energy. Every target of the paper's W is the same direction r, so its dense W = D H_fᵀP (P H_f H_fᵀ P + γP)⁺ P is
  exactly r uᵀ.
* ``energy:t``: the same u, where Q holds the least eigenvectors that together have at most the share t of tr C.
* ``soft:α``: no projector; u = (F_fᵀF_f/n_f + αC/n_r + γI)⁻¹ mean(F_f). α → ∞ gives the projector back.

γ is ``ridge`` (absolute), or ``ridge`` times the mean diagonal of the matrix it is added to (relative). All in fp64.
Source: MLLMEraser, arXiv 2510.04217, stage 2; the rank-one form and the soft null space are ours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mllmeraser.errors import InputError
from mllmeraser.steering.forms import NullSpace, RidgeScale


def solve_soft(
    gram: Tensor,
    total: Tensor,
    n_forget: int,
    retain_moment: Tensor,
    n_retain: int,
    alpha: float,
    ridge: float,
    ridge_scale: RidgeScale,
) -> Tensor:
    """u (m,), fp64, of ``soft:alpha`` from F_fᵀF_f (m, m), F_fᵀ1 (m,) and C (m, m).

    Raises:
        InputError: the system is singular (γ = 0 on dependent features).
    """
    system = gram.double() / n_forget + alpha * retain_moment.double() / n_retain
    return _ridge_solve(system, total.double() / n_forget, ridge, ridge_scale)


def solve(
    forget: Tensor, retain_moment: Tensor, n_retain: int, null_space: NullSpace, ridge: float, ridge_scale: RidgeScale
) -> Tensor:
    """u (m,), fp64, for forget features (n_f, m) and the retain second moment C (m, m).

    Raises:
        InputError: the null space is empty (ρm < 1), or the system is singular (γ = 0 on dependent features).
    """
    forget, moment = forget.double(), retain_moment.double()
    ones = torch.ones(len(forget), dtype=torch.float64)
    if null_space.form == "soft":
        gram, total = forget.T @ forget, forget.sum(dim=0)
        return solve_soft(gram, total, len(forget), moment, n_retain, null_space.value, ridge, ridge_scale)
    Q = _least_directions(moment, null_space)
    projected = forget @ Q  # (n_f, k)
    if len(forget) < projected.shape[1]:
        # Dual form, (n_f, n_f) instead of (k, k): Q Gᵀ (G Gᵀ + γI)⁻¹ 1 with G = F_f Q.
        gamma = ridge if ridge_scale == "absolute" else ridge * float(projected.pow(2).sum(dim=0).mean())
        return Q @ (projected.T @ _ridge_solve(projected @ projected.T, ones, gamma, "absolute"))
    return Q @ _ridge_solve(projected.T @ projected, projected.T @ ones, ridge, ridge_scale)


def _least_directions(moment: Tensor, null_space: NullSpace) -> Tensor:
    """Q (m, k), the eigenvectors of least energy."""
    energies, directions = torch.linalg.eigh(moment)  # ascending
    if null_space.form == "ratio":
        kept = int(null_space.value * len(moment))
    else:
        held = energies.clamp(min=0).cumsum(dim=0)
        kept = int((held / held[-1] <= null_space.value).sum())
    if kept == 0:
        raise InputError(f"null space {null_space} of {len(moment)} features is empty; ask for a larger share")
    return directions[:, :kept]


def _ridge_solve(system: Tensor, target: Tensor, ridge: float, scale: RidgeScale) -> Tensor:
    gamma = ridge if scale == "absolute" else ridge * float(system.diagonal().mean())
    regular = system + gamma * torch.eye(len(system), dtype=system.dtype)
    factor, failed = torch.linalg.cholesky_ex(regular)
    if int(failed):
        raise InputError("the gate's system is singular; ask for a larger --ridge")
    return torch.cholesky_solve(target.unsqueeze(-1), factor).squeeze(-1)
