"""The gate of one layer at the size of a 7B model, against the paper's dense formula: time, agreement and size.

    [OMP_NUM_THREADS=1] python benchmarks/null_space.py [--d 4096] [--retain 5400] [--forget 450] [--cpu-time]

The paper's formula, as it stands (fp64; H_f (d, n_f) forget, C = H_r H_rᵀ (d, d) retain, every column of D is r):

    C = U S Vᵀ,   Q = the ⌊0.3 d⌋ last columns of U,   P = QQᵀ
    W = D H_fᵀ P (P H_f H_fᵀ P + γP)⁺ P

Ours gives u with W = r uᵀ, from one symmetric decomposition of C and a linear system of size min(n_f, ⌊0.3 d⌋). All
ways start from the same C, and all times are for one layer. ``soft`` is another gate, so it is compared with its own
formula, solved by LU. The sizes are those of the file of W in fp32 and of the bundle that holds r and u
(`mllmeraser import-official` makes it from that file). The dense formula takes one to three minutes. ``--cpu-time`` is
for a shared machine and needs OMP_NUM_THREADS=1, because a thread that waits for another one counts too.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from mllmeraser.bundle.bundle import save_bundle
from mllmeraser.bundle.metadata import Base
from mllmeraser.steering.forms import NullSpace
from mllmeraser.steering.null_space import solve
from mllmeraser.steering.official import import_official

RATIO, GAMMA, ALPHA, RIDGE = 0.3, 0.1, 1.0, 0.001
Result = TypeVar("Result")
clock = time.perf_counter


def states(count: int, d: int, seed: int) -> Tensor:
    """Random hidden states (n, d) with a mean and with directions of very different energy, as a model has."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(-1, 1, d, dtype=torch.float64)
    mean = torch.randn(d, dtype=torch.float64, generator=generator) / 4
    return (torch.randn(count, d, dtype=torch.float64, generator=generator) + mean) * scale


def paper(C: Tensor, H_f: Tensor, r: Tensor) -> Tensor:
    """W (d, d) by the dense formula."""
    U, _, _ = torch.linalg.svd(C)  # energies descend
    Q = U[:, len(C) - int(RATIO * len(C)) :]
    P = Q @ Q.T
    D = r[:, None].expand(len(r), H_f.shape[1])
    # The smallest eigenvalue on the range of P is γ, so this cuts off only zeros that rounding changed.
    inverse = torch.linalg.pinv(P @ H_f @ H_f.T @ P + GAMMA * P, atol=GAMMA / 2)
    return D @ H_f.T @ P @ inverse @ P


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """The result of the call, and its seconds."""
    start = clock()
    result = call()
    return result, clock() - start


def best(call: Callable[[], Result], rounds: int) -> tuple[Result, float]:
    """The same for the quickest of several rounds."""
    runs = [timed(call) for _ in range(rounds)]
    return runs[0][0], min(seconds for _, seconds in runs)


def sizes(W: Tensor, d: int) -> tuple[int, int]:
    """The bytes of the file of W in fp32, and of the bundle that steers in the same way."""
    base = Base(
        repo_id="llava-hf/llava-1.5-7b-hf",
        revision="0" * 40,
        architecture="LlavaForConditionalGeneration",
        model_type="llava",
        hidden_size=d,
        num_layers=32,
        config_sha256="0" * 64,
    )
    with tempfile.TemporaryDirectory() as name:
        dense, bundle = Path(name) / "w.pt", Path(name) / "bundle.safetensors"
        torch.save({16: W.float()}, dense)
        save_bundle(import_official([dense], base).bundle, bundle)
        return dense.stat().st_size, bundle.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d", type=int, default=4096)
    parser.add_argument("--retain", type=int, default=5400)
    parser.add_argument("--forget", type=int, default=450)
    parser.add_argument("--cpu-time", action="store_true", help="count processor time; needs OMP_NUM_THREADS=1")
    options = parser.parse_args()
    if options.cpu_time:
        if os.environ.get("OMP_NUM_THREADS") != "1":
            parser.error("--cpu-time needs OMP_NUM_THREADS=1: a thread that waits counts too")
        global clock
        clock = time.process_time
    d, n_r = options.d, options.retain
    retain, forget = states(n_r, d, 0), states(options.forget, d, 1)
    r = states(1, d, 2)[0]
    C = retain.T @ retain
    torch.linalg.eigh(C[:256, :256])  # the first call sets the library up

    hard, hard_s = best(lambda: solve(forget, C, n_r, NullSpace("ratio", RATIO), GAMMA, "absolute"), 2)
    soft, soft_s = best(lambda: solve(forget, C, n_r, NullSpace("soft", ALPHA), RIDGE, "relative"), 3)
    system = forget.T @ forget / len(forget) + ALPHA * C / n_r
    system += RIDGE * system.diagonal().mean() * torch.eye(d, dtype=torch.float64)
    expected = torch.linalg.solve(system, forget.mean(dim=0))
    soft_error = float((soft - expected).abs().max() / expected.abs().max())
    W, dense_s = timed(lambda: paper(C, forget.T, r))
    hard_error = float((W - torch.outer(r, hard)).abs().max() / W.abs().max())
    dense_bytes, bundle_bytes = sizes(W, d)

    kind = "processor time" if options.cpu_time else "wall clock"
    print(f"d = {d}, n_retain = {n_r}, n_forget = {options.forget}, fp64, {torch.get_num_threads()} thread(s), {kind}")
    print(f"{'paper, dense':16} {dense_s:8.2f} s")
    for name, seconds, error in (("ratio:0.3", hard_s, hard_error), ("soft:1", soft_s, soft_error)):
        print(f"{name:16} {seconds:8.2f} s  {dense_s / seconds:6.1f} times faster, largest relative error {error:.1e}")
    print(f"{'bundle':16} {bundle_bytes:,} bytes for {dense_bytes:,}: {dense_bytes / bundle_bytes:,.0f} times smaller")


if __name__ == "__main__":
    main()
