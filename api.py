"""The public calls that need more than one room.

A base is a local directory or a Hub id ``org/name[@revision]``. Records are given as the path of their file or folder
(``docs/records.md``). Each call returns what its command prints; the result's ``document()`` is the command's
``--json``. The other public calls are written in their own rooms; ``mllmeraser/__init__.py`` lists all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mllmeraser.baselines.methods import Baseline, make_baseline
from mllmeraser.baselines.recipes import recipe_of
from mllmeraser.baselines.words import read_names
from mllmeraser.bundle.bundle import Bundle, load_bundles, save_bundle
from mllmeraser.disk.atomic import write_atomically
from mllmeraser.disk.target import file_target
from mllmeraser.exporter.base import check_usable, read_base
from mllmeraser.inference.loading import BATCH_SIZE, load
from mllmeraser.inference.processes import processes
from mllmeraser.inference.source import Source, read_config, resolve
from mllmeraser.judging.deriving import with_facts
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record
from mllmeraser.records.show import Shown, as_files, source_of
from mllmeraser.steering import compute as computing
from mllmeraser.steering import interference as interfering
from mllmeraser.steering import needs as planning
from mllmeraser.steering import official
from mllmeraser.steering.compute import Computation
from mllmeraser.steering.interference import Interference
from mllmeraser.steering.needs import Needs
from mllmeraser.steering.official import Imported
from mllmeraser.steering.provenance import name_data
from mllmeraser.steering.recipe import Recipe, make_recipe

AnyPath = str | Path


def compute(
    base: AnyPath,
    forget: AnyPath,
    retain: AnyPath,
    output: AnyPath | None = None,
    *,
    recipe: AnyPath | None = None,
    request_id: str = "request-1",
    compare_directions: bool = False,
    work_dir: AnyPath | None = None,
    device: str = "cpu",
    dtype: str = "auto",
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    overwrite: bool = False,
    **choices: Any,
) -> Computation:
    """Compute the bundle of one request (arXiv 2510.04217; ``docs/method.md`` says what goes beyond it).

    Args:
        base: the model as it is, without steering.
        forget, retain: records of whom to forget and of what to keep; no subject may stand in both.
        output: the ``.safetensors`` file to write; by default the bundle is only returned.
        recipe: a ``recipe.toml``.
        request_id: names the request in the bundle; must not name a person.
        compare_directions: also compute the cosines between directions of different sources.
        work_dir: keeps finished forward passes and the trade-off curve; a killed run goes on from there.
        device: a torch device, or ``auto`` to spread the model over what there is.
        dtype: ``auto`` (as stored), ``float32``, ``bfloat16`` or ``float16``.
        batch_size: prompts a forward pass; halved where memory does not suffice.
        seed: of everything that is random.
        overwrite: replace an existing bundle.
        choices: fields of :class:`mllmeraser.steering.recipe.Recipe`, such as ``gate="linear"`` or
            ``preset="paper"``. They win over the recipe file, and calibration never overrides them.

    Raises:
        InputError: base, records or a choice cannot be used.
        QualityGateError: the base refuses too few erasure prompts, or answers no recall prompt: there is no direction.

    Example::

        computation = mllmeraser.compute("base", "forget.jsonl", "retain.jsonl", "request.safetensors")
        print(*computation.lines(), sep="\\n")
    """
    if output is not None:
        file_target(Path(output), overwrite)
    source, chosen, forgotten, kept = _read(base, forget, retain, recipe, choices)
    planning.needs(source, forgotten, kept, chosen, device, dtype).check()
    folder = None if work_dir is None else Path(work_dir)
    checkpoint = load(source, device=device, dtype=dtype, work_dir=folder, batch_size=batch_size)
    computation = computing.compute(
        checkpoint, forgotten, kept, chosen, request_id=request_id, seed=seed, compare=compare_directions
    )
    name_data(
        computation,
        {"forget": Path(forget), "retain": Path(retain), "recall": chosen.recall, "erasure": chosen.erasure},
    )
    if output is not None and processes().leads:
        save_bundle(computation.bundle, Path(output))
    return computation


def needs(
    base: AnyPath,
    forget: AnyPath,
    retain: AnyPath,
    *,
    recipe: AnyPath | None = None,
    device: str = "cpu",
    dtype: str = "auto",
    **choices: Any,
) -> Needs:
    """What :func:`compute` would do with the same arguments, and how much memory and disk it needs; loads no model.

    Raises:
        InputError: base, records or a choice cannot be used.

    Example::

        mllmeraser.needs("base", "forget.jsonl", "retain.jsonl").check()  # raises if memory or disk does not suffice
    """
    source, chosen, forgotten, kept = _read(base, forget, retain, recipe, choices)
    return planning.needs(source, forgotten, kept, chosen, device, dtype)


def _read(
    base: AnyPath, forget: AnyPath, retain: AnyPath, recipe: AnyPath | None, choices: Mapping[str, Any]
) -> tuple[Source, Recipe, list[Record], list[Record]]:
    """Read everything that a computation takes from files."""
    source = resolve(base)
    model_type = str(read_config(source.path)["model_type"])
    chosen = make_recipe(model_type, choices, None if recipe is None else Path(recipe))
    return source, chosen, with_facts(read_records(Path(forget))), read_records(Path(retain))


def records(data: AnyPath, output: AnyPath | None = None, *, overwrite: bool = False) -> Shown:
    """Read records with their facts: what must not be told (``docs/records.md``). Correct them and feed them back.

    Args:
        data: a file of records, or a benchmark's folder.
        output: a JSON Lines file to write them to, with the facts of every record. Pictures of a benchmark are written
            beside it. By default they are only returned.
        overwrite: replace an existing ``output``.

    Raises:
        InputError: the records cannot be read, or the output cannot be written.

    Example::

        shown = mllmeraser.records("forget.jsonl", "forget-facts.jsonl")
        print(*shown.lines(), sep="\\n")
    """
    written = None if output is None else Path(output)
    if written is not None:
        file_target(written, overwrite)
    read = read_records(Path(data))
    told = with_facts(read)
    shown = Shown(told, [source_of(before, after) for before, after in zip(read, told, strict=True)], written)
    if written is not None:
        for path, content in as_files(told, written.resolve()).items():
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, content)
    return shown


def interference(
    base: AnyPath,
    bundles: Sequence[AnyPath | Bundle],
    forget: Sequence[AnyPath],
    *,
    device: str = "cpu",
    dtype: str = "auto",
    batch_size: int = BATCH_SIZE,
) -> Interference:
    """Measure how far the gates of each request open on the forget set of every bundle.

    Args:
        base: the base that the bundles were computed on.
        forget: the forget records of each bundle, in the order of the bundles.

    Raises:
        InputError: base, bundles and records do not fit each other.

    Example::

        found = mllmeraser.interference("base", ["a.safetensors", "b.safetensors"], ["a.jsonl", "b.jsonl"])
        print(*found.lines(), sep="\\n")
    """
    steering, records = load_bundles(bundles), [read_records(Path(path)) for path in forget]
    checkpoint = load(resolve(base), device=device, dtype=dtype, batch_size=batch_size)
    return interfering.interference(checkpoint, steering, records)


def import_official(
    files: Sequence[AnyPath],
    base: AnyPath,
    output: AnyPath | None = None,
    *,
    request_id: str = "request-1",
    strength: float = 0.25,
    row_vectors: bool = False,
    overwrite: bool = False,
) -> Imported:
    """Make a bundle of the authors' dense ``.pt`` matrices, one d × d matrix a layer; no code in the files runs.

    Args:
        base: the model that the matrices were made for.
        output: the file to write; by default the bundle is only returned.
        strength: the authors' λ, without its sign.
        row_vectors: the matrices are made for h W instead of W h.

    Raises:
        InputError: a file holds no such matrices, or a matrix is not of rank one.

    Example::

        mllmeraser.import_official(["layer_17.pt"], "base", "official.safetensors", strength=0.25)
    """
    if output is not None:
        file_target(Path(output), overwrite)
    known = read_base(resolve(base))
    check_usable(known)
    imported = official.import_official(
        [Path(file) for file in files],
        known.identity,
        request_id=request_id,
        strength=strength,
        row_vectors=row_vectors,
    )
    if output is not None:
        save_bundle(imported.bundle, Path(output))
    return imported


def baseline(
    name: str,
    base: AnyPath,
    forget: AnyPath,
    retain: AnyPath,
    output: AnyPath,
    *,
    settings: Sequence[str] = (),
    names: AnyPath | None = None,
    device: str = "cpu",
    seed: int = 0,
    overwrite: bool = False,
) -> Baseline:
    """Forget by another method, for comparison, and write an ordinary checkpoint (``docs/baselines.md``).

    Args:
        name: the method.
        settings: changes to the method's recipe, each ``KEY=VALUE``.
        names: for ``system-prompt``: a file with the names of the people to forget, one a line.

    Raises:
        InputError: the method, a setting, base, records or output cannot be used; nothing was written.
        MllmEraserError: the training diverged.

    Example::

        mllmeraser.baseline("npo", "base", "forget.jsonl", "retain.jsonl", "npo", settings=["epochs=2"])
    """
    return make_baseline(
        name,
        recipe_of(name, settings),
        resolve(base),
        read_records(Path(forget)),
        read_records(Path(retain)),
        Path(output),
        names=read_names(Path(names)) if names is not None else (),
        device=device,
        seed=seed,
        overwrite=overwrite,
    )
