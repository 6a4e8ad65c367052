"""u of :func:`solve` against the formulas it stands for, written out plainly in fp64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mllmeraser.errors import InputError
from mllmeraser.steering.forms import NullSpace
from mllmeraser.steering.null_space import solve


def rows(count: int, width: int, seed: int) -> Tensor:
    """Random features, some directions far stronger than others, as in a model."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-1, 1, width, dtype=torch.float64)
    return torch.randn(count, width, dtype=torch.float64, generator=generator) * scale


def paper_w(h_f: Tensor, h_r: Tensor, r: Tensor, ratio: float, gamma: float) -> Tensor:
    """W = D H_fᵀP (P H_f H_fᵀ P + γP)⁺ P of the paper; its H are (d, n), one sample a column."""
    energies, directions = torch.linalg.eigh(h_r @ h_r.T)
    Q = directions[:, energies.argsort()[: int(ratio * len(energies))]]
    P = Q @ Q.T
    D = r[:, None].expand(len(r), h_f.shape[1])
    # The eigenvalues left by γP are at least γ; a cut at 1e-10 of the largest takes only the rounded zeros.
    inverse = torch.linalg.pinv(P @ h_f @ h_f.T @ P + gamma * P, hermitian=True, rtol=1e-10)
    return D @ h_f.T @ P @ inverse @ P


def largest_difference(a: Tensor, b: Tensor) -> float:
    """Relative to the largest entry."""
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("gamma", [0.1, 1.0])
@pytest.mark.parametrize("n_forget", [5, 40], ids=["dual", "primal"])
def test_rank_one_is_the_dense_formula_of_the_paper(n_forget: int, gamma: float) -> None:
    d = 48  # ⌊0.3 d⌋ = 14 directions: more than 5 forget samples, less than 40
    forget, retain, r = rows(n_forget, d, 0), rows(60, d, 1), rows(1, d, 2)[0]
    u = solve(forget, retain.T @ retain, len(retain), NullSpace("ratio", 0.3), gamma, "absolute")
    assert largest_difference(torch.outer(r, u), paper_w(forget.T, retain.T, r, 0.3, gamma)) < 1e-9


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    d=st.integers(2, 30),
    n_forget=st.integers(1, 40),
    n_retain=st.integers(1, 60),
    ratio=st.floats(0.5, 1.0),
    gamma=st.sampled_from([0.1, 1.0]),
    seed=st.integers(0, 1000),
)
def test_it_is_for_any_sizes(d: int, n_forget: int, n_retain: int, ratio: float, gamma: float, seed: int) -> None:
    # With n_retain < d the least eigenvalues are all zero, and any basis of their space gives the same P, unless the
    # cut goes through it: then P is not determined by C, and there is nothing to compare.
    if n_retain < d and int(ratio * d) < d - n_retain:
        return
    forget, retain, r = rows(n_forget, d, seed), rows(n_retain, d, seed + 1), rows(1, d, seed + 2)[0]
    u = solve(forget, retain.T @ retain, n_retain, NullSpace("ratio", ratio), gamma, "absolute")
    assert largest_difference(torch.outer(r, u), paper_w(forget.T, retain.T, r, ratio, gamma)) < 1e-9


@pytest.mark.parametrize("n_forget", [5, 40], ids=["dual", "primal"])
def test_a_relative_ridge_is_a_share_of_the_mean_diagonal(n_forget: int) -> None:
    d, ratio = 48, 0.3
    forget, retain = rows(n_forget, d, 0), rows(60, d, 1)
    moment = retain.T @ retain
    Q = torch.linalg.eigh(moment).eigenvectors[:, : int(ratio * d)]
    gamma = 0.05 * float((Q.T @ forget.T @ forget @ Q).diagonal().mean())
    relative = solve(forget, moment, 60, NullSpace("ratio", ratio), 0.05, "relative")
    absolute = solve(forget, moment, 60, NullSpace("ratio", ratio), gamma, "absolute")
    assert largest_difference(relative, absolute) < 1e-12


@pytest.mark.parametrize("scale", ["absolute", "relative"])
def test_soft_is_its_formula(scale: str) -> None:
    d, alpha, ridge = 20, 3.0, 0.2
    forget, retain = rows(30, d, 0), rows(70, d, 1)
    system = forget.T @ forget / 30 + alpha * retain.T @ retain / 70
    gamma = ridge * float(system.diagonal().mean()) if scale == "relative" else ridge
    expected = torch.linalg.solve(system + gamma * torch.eye(d, dtype=torch.float64), forget.mean(dim=0))
    u = solve(forget, retain.T @ retain, 70, NullSpace("soft", alpha), ridge, scale)
    assert largest_difference(u, expected) < 1e-12


def test_soft_becomes_the_projector_as_alpha_grows() -> None:
    """On an exact null space; the ratio form's sums are n_f times the soft form's means, and so is its γ."""
    d, free, n = 12, 5, 30
    forget, retain = rows(n, d, 0), rows(50, d, 1)
    retain[:, :free] = 0
    moment = retain.T @ retain
    soft = solve(forget, moment, 50, NullSpace("soft", 1e9), 0.1, "absolute")
    projected = solve(forget, moment, 50, NullSpace("ratio", (free + 0.5) / d), n * 0.1, "absolute")
    assert largest_difference(soft, projected) < 1e-6
    assert float((retain @ soft).abs().max()) < 1e-6
    assert float((forget @ soft).abs().max()) > 0.1


def test_energy_keeps_the_least_directions_that_hold_its_share() -> None:
    moment = torch.diag(torch.tensor([0.0, 1.0, 1.0, 8.0, 90.0], dtype=torch.float64))  # shares 0 1 2 10 100 %
    forget = rows(9, 5, 0)
    for share, kept in ((0.015, 2), (0.05, 3), (0.5, 4), (1.0, 5)):
        u = solve(forget, moment, 50, NullSpace("energy", share), 0.1, "absolute")
        same = solve(forget, moment, 50, NullSpace("ratio", kept / 5), 0.1, "absolute")
        assert torch.equal(u, same)
        assert u.count_nonzero() == kept


@pytest.mark.parametrize("seed", range(8))
def test_all_directions_hold_all_energy_however_their_sum_is_rounded(seed: int) -> None:
    d, n_retain = 300, 600
    forget, retain = rows(5, d, seed), rows(n_retain, d, seed + 100)
    u, same = (
        solve(forget, retain.T @ retain, n_retain, null_space, 0.1, "absolute")
        for null_space in (NullSpace("energy", 1.0), NullSpace("ratio", 1.0))
    )
    assert torch.equal(u, same)


@pytest.mark.parametrize("null_space", [NullSpace("ratio", 0.1), NullSpace("energy", 1e-9)], ids=str)
def test_an_empty_null_space_is_an_error(null_space: NullSpace) -> None:
    retain = rows(50, 8, 0)
    with pytest.raises(InputError, match=f"^null space {null_space} of 8 features is empty; ask for a larger share$"):
        solve(rows(10, 8, 1), retain.T @ retain, 50, null_space, 0.1, "absolute")


@pytest.mark.parametrize("null_space", [NullSpace("soft", 1.0), NullSpace("ratio", 1.0)], ids=str)
def test_a_singular_system_is_an_error(null_space: NullSpace) -> None:
    forget = torch.ones(10, 4, dtype=torch.float64)
    with pytest.raises(InputError, match=r"singular; ask for a larger --ridge$"):
        solve(forget, torch.zeros(4, 4, dtype=torch.float64), 10, null_space, 0.0, "absolute")
