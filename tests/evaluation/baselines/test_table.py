"""The table's command: equal budgets, nothing judged that was fitted, and its lines."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import baselines as command
from mllmeraser.baselines.recipes import RECIPES, Training, recipe_of
from mllmeraser.judging.results_file import Method


def test_trained_methods_have_equal_budgets() -> None:
    trained = {name: recipe for name, recipe in RECIPES.items() if isinstance(recipe, Training)}
    made = {name: [recipe_of(name, settings) for settings in command.grid_of(name)] for name in trained}
    assert {len(set(recipes)) for recipes in made.values()} == {4}
    assert len({(r.epochs, r.batch_size) for recipes in made.values() for r in recipes if isinstance(r, Training)}) == 1


def test_what_a_configuration_is_judged_by_was_not_fitted(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "data")
    (fit_forget, fit_retain), (held_forget, held_retain) = command._split(tmp_path)
    assert len(fit_forget) + len(held_forget) == 8 and held_forget
    assert not {(s.image, s.question) for s in fit_forget} & {(s.image, s.question) for s in held_forget}
    assert held_retain and not {s.subject for s in fit_retain} & {s.subject for s in held_retain}


@pytest.mark.slow
def test_a_run_leaves_its_figures_and_what_it_cost(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a random base: a trial and a run of a trained method, and filters; ``refuse-all`` has nothing kept."""
    monkeypatch.setattr(command, "BASE", world / "base")
    monkeypatch.setattr(command, "SETS", dict.fromkeys(command.SETS, "retain") | {"test": "forget"})
    shutil.copytree(world, tmp_path / "data")
    settings = command.grid_of("ga")[1]
    runs = [
        command.Run(tmp_path, "base", (), 0, False),
        command.Run(tmp_path, "ga", settings, 0, True),
        command.Run(tmp_path, "ga", settings, 1, False),
        *(command.Run(tmp_path, name, (), 0, False) for name in command.FILTERS),
    ]
    found = {}
    for run in runs:
        command.work(run)
        found[run.folder.name] = run.found()
    assert found["base.0.0"].identical == 1.0 and found["base.0.0"].bytes_added == 0
    trained, filters = found["ga.1.1"], [found[f"{name}.0.0"] for name in command.FILTERS]
    assert trained.seconds > 0 and trained.bytes_added > 0 and trained.checkpoint
    assert trained.settings == list(settings) and trained.seed == 1
    figures = {"harmonic_mean", "forgotten", "refusal", "options", "kept", "celebrity", "common", "identical"}
    assert all(figures <= row.model_fields_set and not row.checkpoint for row in filters)
    refusing = found["refuse-all.0.0"]
    assert (refusing.forgotten, refusing.refusal, refusing.identical) == (1.0, 1.0, 0.0)
    assert refusing.utility == refusing.harmonic_mean == 0.0
    assert (tmp_path / "runs" / "ga.1.1" / "checkpoint").is_dir()
    assert not (tmp_path / "trials" / "ga.1.0" / "checkpoint").exists()
    assert len(command.table([trained, *filters])) == 2 + 1 + len(filters)


def test_the_best_configuration_is_taken_and_a_failed_one_never(tmp_path: Path) -> None:
    grid = command.grid_of("ga")
    facts: list[dict[str, Any]] = [{"failed": "no"}, *({"harmonic_mean": h} for h in (0.2, 0.7, 0.7))]
    for settings, found in zip(grid, facts, strict=True):
        run = command.Run(tmp_path, "ga", settings, 0, True)
        run.folder.mkdir(parents=True)
        run.result.write_text(Method(name="ga", **found).model_dump_json(exclude_unset=True))
    assert command.chosen(tmp_path, "ga") == grid[2]


def test_a_line_shows_the_mean_and_half_the_range() -> None:
    costs = {"seconds": 2.0, "peak_memory_bytes": 2**20, "bytes_added": 1_500}
    rows = [Method(name="ga", harmonic_mean=0.5, kept=kept, options=None, **costs) for kept in (0.2, 0.3, 0.6)]
    line = command.table(rows)[-1]
    assert line.startswith("| ga | 50.0 ± 0.0 |")
    assert "| 36.7 ± 20.0 |" in line and "| – |" in line
    assert line.endswith("| 2.0 | 1 MiB | 1.5 KB |")
    failed = command.table([Method(name="ga", failed="the training diverged")])[-1]
    assert failed == "| ga | the training diverged |"


def test_percentages_say_nothing_of_what_is_not_known() -> None:
    assert command._percent([None, None]) == "–"
    assert command._percent([0.125]) == "12.5"
    assert command._percent([0.0, 1.0]) == "50.0 ± 50.0"


@pytest.mark.parametrize(("count", "said"), [(12, "12 B"), (1_500, "1.5 KB"), (4_900_000, "4.9 MB")])
def test_sizes(count: int, said: str) -> None:
    assert command._size(count) == said
