"""What the commands do, one call each: ``import mllmeraser; mllmeraser.export(…)``.

A base or model is a local directory or a Hub id ``org/name[@revision]``; records are the path of their file or folder
(``docs/records.md``). Each call returns what its command prints: ``document()`` of it is the command's ``--json``.

torch and transformers take seconds to import, so each call imports what it needs when it is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mllmeraser.errors import InputError
from mllmeraser.evaluation.evaluation import evaluate
from mllmeraser.report.report import report

if TYPE_CHECKING:
    from mllmeraser.baselines.methods import Baseline
    from mllmeraser.bundle.bundle import Bundle
    from mllmeraser.exporter.hub import Push
    from mllmeraser.exporter.onnx.directory import SteeredDirectory
    from mllmeraser.exporter.plan import Plan
    from mllmeraser.exporter.verify import Verification
    from mllmeraser.inference.source import Source
    from mllmeraser.records.record import Record
    from mllmeraser.steering.compute import Computation
    from mllmeraser.steering.interference import Interference
    from mllmeraser.steering.needs import Needs
    from mllmeraser.steering.official import Imported
    from mllmeraser.steering.recipe import Recipe

__all__ = [
    "baseline",
    "compute",
    "evaluate",
    "export",
    "export_onnx",
    "import_official",
    "inspect",
    "interference",
    "load_bundle",
    "needs",
    "onnx_steer",
    "push",
    "report",
    "sign",
    "verify",
]

AnyPath = str | Path
Link = Literal["auto", "copy", "hard", "sym"]
Toggle = Literal["constant", "input"]


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
    batch_size: int = 64,
    seed: int = 0,
    overwrite: bool = False,
    **choices: Any,
) -> Computation:
    """The steering bundle of one removal request (arXiv 2510.04217, and what goes beyond it: ``docs/method.md``).

    Args:
        base: the model, un-steered.
        forget, retain: records of whom to forget and of what to keep; no subject may stand in both.
        output: the bundle is written here, a ``.safetensors`` file; by default it is only returned.
        recipe: a ``recipe.toml``.
        request_id: names the request in the bundle; must not name a person.
        compare_directions: also find the cosines between directions of different sources.
        work_dir: finished forward passes and the trade-off curve are kept here; a killed run goes on from them.
        device: a torch device, or ``auto`` to spread the model over what there is.
        dtype: ``auto`` (as stored), ``float32``, ``bfloat16`` or ``float16``.
        batch_size: prompts a forward pass; halved where memory does not suffice.
        seed: of everything that is random.
        overwrite: replace a bundle that is there.
        choices: fields of :class:`mllmeraser.steering.recipe.Recipe`, such as ``gate="linear"`` or
            ``preset="paper"``; they win over the recipe file, and calibration never overrides them.

    Raises:
        InputError: base, records or a choice cannot be used.
        QualityGateError: the base does not refuse what it should, so there is no direction.
    """
    from mllmeraser.bundle.bundle import save_bundle
    from mllmeraser.disk.atomic import refuse_existing
    from mllmeraser.inference.loading import load
    from mllmeraser.inference.processes import processes
    from mllmeraser.steering.compute import compute
    from mllmeraser.steering.needs import needs
    from mllmeraser.steering.provenance import name_data

    if output is not None:
        refuse_existing([Path(output)], overwrite)
    source, chosen, forget_records, retain_records = _read(base, forget, retain, recipe, choices)
    needs(source, forget_records, retain_records, chosen, device, dtype).check()
    computation = compute(
        load(
            source,
            device=device,
            dtype=dtype,
            work_dir=None if work_dir is None else Path(work_dir),
            batch_size=batch_size,
        ),
        forget_records,
        retain_records,
        chosen,
        request_id=request_id,
        seed=seed,
        compare=compare_directions,
    )
    name_data(
        computation.bundle,
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
    """What :func:`compute` would do with the same arguments, and the memory and disk it takes; no model is loaded.

    Raises:
        InputError: base, records or a choice cannot be used.
    """
    from mllmeraser.steering.needs import needs

    source, chosen, forget_records, retain_records = _read(base, forget, retain, recipe, choices)
    return needs(source, forget_records, retain_records, chosen, device, dtype)


def load_bundle(path: AnyPath) -> Bundle:
    """Read and check a bundle file.

    Raises:
        InputError: it is not one, or is damaged.
    """
    from mllmeraser.bundle.bundle import load_bundle

    return load_bundle(Path(path))


def export(
    base: AnyPath,
    bundles: Sequence[AnyPath | Bundle],
    output: AnyPath,
    *,
    link: Link = "auto",
    overwrite: bool = False,
    dry_run: bool = False,
    hash_weights: bool = True,
    thin: bool = False,
    base_id: str | None = None,
) -> Plan:
    """A checkpoint directory that steers by itself; the base model is never loaded.

    Args:
        bundles: files, or what :func:`compute` returned as ``.bundle``; several become several requests.
        link: how the base's shards come in: ``auto`` (reflink, else hard link, else copy), ``copy``, ``hard``, or
            ``sym`` (the directory then works on this machine only).
        overwrite: replace a directory that is not empty.
        dry_run: decide and check everything, write nothing.
        hash_weights: read weights whose sha256 neither the Hub nor a bundle says; else the manifest leaves it out, and
            :func:`verify` fails unless it is given the base to compare with.
        thin: leave the weights out and point to the base on the Hub, its revision and the sha256 of its files.
        base_id: with ``thin``: ``org/name@<40-hex revision>``, where ``base`` is neither from the Hub nor in its cache.

    Raises:
        InputError: base, bundles or output cannot be used; nothing was written.
        MllmEraserError: the disk is full or fails; nothing is left behind.
    """
    from mllmeraser.bundle.bundle import load_bundle
    from mllmeraser.exporter.directory import export
    from mllmeraser.inference.source import resolve

    _refuse_one(bundles)
    # Without torch: an export takes a second and 100 MB, of which importing torch would make several of both.
    steering = [load_bundle(Path(bundle)) if isinstance(bundle, (str, Path)) else bundle for bundle in bundles]
    return export(
        resolve(base),
        steering,
        Path(output),
        link=link,
        overwrite=overwrite,
        dry_run=dry_run,
        hash_weights=hash_weights,
        thin=thin,
        base_id=base_id,
    )


def export_onnx(
    base: AnyPath,
    bundles: Sequence[AnyPath | Bundle],
    output: AnyPath,
    *,
    toggle: Toggle = "constant",
    overwrite: bool = False,
) -> SteeredDirectory:
    """Steered graphs for ONNX Runtime and transformers.js (``docs/onnx.md``); needs the extra ``onnx``.

    Args:
        toggle: how they are switched off: ``constant``, a twin graph of the base; ``input``, a required input.

    Raises:
        InputError: base, bundles or output cannot be used, or the extra is missing; nothing was written.
    """
    from mllmeraser.console import console
    from mllmeraser.exporter.onnx.api import onnx_export
    from mllmeraser.inference.source import resolve

    return onnx_export(
        resolve(base), _loaded(bundles), Path(output), toggle=toggle, overwrite=overwrite, progress=console.print
    )


def onnx_steer(
    model_dir: AnyPath,
    bundles: Sequence[AnyPath],
    output: AnyPath,
    *,
    toggle: Toggle = "constant",
    link: Link = "auto",
    overwrite: bool = False,
) -> SteeredDirectory:
    """Insert the steering into every decoder graph of a directory, without torch and without reading weights.

    Raises:
        InputError: a graph is not understood, or does not fit the bundles; nothing was written.
    """
    from mllmeraser.bundle.bundle import load_bundle
    from mllmeraser.exporter.onnx.api import onnx_steer, require_onnx

    require_onnx()
    steering = [load_bundle(Path(path)) for path in bundles]
    return onnx_steer(Path(model_dir), steering, Path(output), toggle=toggle, link=link, overwrite=overwrite)


def verify(directory: AnyPath, *, base: AnyPath | None = None, public_key: AnyPath | None = None) -> Verification:
    """Check every promise of an exported directory that can be checked without a GPU; look at ``.ok``.

    Args:
        base: also check that every base tensor is this base's.
        public_key: a PEM file; also check the signature.

    Raises:
        InputError: there is no such directory or base. A broken promise raises nothing: it is a check that is not ok.
    """
    from mllmeraser.exporter.onnx.api import is_onnx_export, verify_onnx
    from mllmeraser.exporter.verify import verify
    from mllmeraser.inference.source import resolve

    directory = Path(directory)
    onnx = is_onnx_export(directory)
    # A directory of graphs needs no config.json, which a base checkpoint must have.
    found = None if base is None else Path(base) if onnx and Path(base).is_dir() else resolve(base).path
    return (verify_onnx if onnx else verify)(directory, found, None if public_key is None else Path(public_key))


def sign(directory: AnyPath, private_key: AnyPath) -> Path:
    """Sign every file of an exported directory (OpenSSF model signing); needs the extra ``sign``.

    Returns:
        the signature file, in the directory.

    Raises:
        InputError: the key cannot be used, or the extra is missing.
    """
    from mllmeraser.exporter.signing import sign

    return sign(Path(directory), Path(private_key))


def push(
    directory: AnyPath, repo_id: str, *, public: bool = False, results: AnyPath | None = None, dry_run: bool = False
) -> Push:
    """Bring an exported directory to a repository of the Hub, in one commit, private unless asked for otherwise.

    Licence and gate of the base are carried over, its shards are copied by the Hub, and what the Hub holds afterwards
    is compared with what was meant (``docs/hub.md``). The directory is not changed.

    Args:
        repo_id: ``org/name``; made if there is none, and otherwise empty or of an earlier push.
        public: let everybody see it; done last.
        results: the results of :func:`evaluate`; base and steered checkpoint are compared on the card.
        dry_run: look up everything, write nothing.

    Raises:
        VerificationError: the directory breaks a promise, or the Hub holds other bytes afterwards.
        InputError: the repository, its base or ``results`` cannot be used like this; nothing was written.
        MllmEraserError: the Hub could not be reached, or refused; the same call goes on.
    """
    from mllmeraser.exporter.hub import push

    return push(
        Path(directory), repo_id, public=public, results=None if results is None else Path(results), dry_run=dry_run
    )


def inspect(path: AnyPath) -> dict[str, Any]:
    """What is in a bundle file or an exported directory, as the JSON document of the command.

    Raises:
        InputError: it is neither.
    """
    from mllmeraser.exporter.inspect import inspect

    return inspect(Path(path))


def interference(
    base: AnyPath,
    bundles: Sequence[AnyPath | Bundle],
    forget: Sequence[AnyPath],
    *,
    device: str = "cpu",
    dtype: str = "auto",
    batch_size: int = 64,
) -> Interference:
    """How far the gates of each bundle's request open on the forget set of every other.

    Args:
        base: the model, un-steered.
        forget: the records of each bundle, in the order of the bundles.

    Raises:
        InputError: base, bundles and records do not fit each other.
    """
    from mllmeraser.inference.loading import load
    from mllmeraser.inference.source import resolve
    from mllmeraser.records.read import read_records
    from mllmeraser.steering.interference import interference

    steering, records = _loaded(bundles), [read_records(Path(path)) for path in forget]
    return interference(load(resolve(base), device=device, dtype=dtype, batch_size=batch_size), steering, records)


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
    """The authors' dense ``.pt`` matrices, one d × d a block, as a bundle; no code in the files is run.

    Args:
        base: the model they were made for.
        output: the bundle is written here; by default it is only returned.
        strength: the authors' λ, without its sign.
        row_vectors: the matrices are made for h W instead of W h.

    Raises:
        InputError: a file is not such matrices, or one is not of rank one.
    """
    from mllmeraser.bundle.bundle import save_bundle
    from mllmeraser.disk.atomic import refuse_existing
    from mllmeraser.exporter.base import read_base
    from mllmeraser.inference.source import resolve
    from mllmeraser.steering.official import import_official

    if output is not None:
        refuse_existing([Path(output)], overwrite)
    imported = import_official(
        [Path(file) for file in files],
        read_base(resolve(base)).identity,
        request_id=request_id,
        strength=strength,
        row_vectors=row_vectors,
    )
    if output is not None:
        save_bundle(imported.bundle, Path(output))
    return imported


def _loaded(bundles: Sequence[AnyPath | Bundle]) -> list[Bundle]:
    _refuse_one(bundles)
    return [load_bundle(bundle) if isinstance(bundle, (str, Path)) else bundle for bundle in bundles]


def _refuse_one(bundles: object) -> None:
    if isinstance(bundles, (str, Path)):
        raise InputError(f"{bundles}: give a list of bundles")


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
    """Another way to forget, for comparison, as an ordinary checkpoint: the methods of ``docs/baselines.md``.

    Args:
        settings: changes to the method's recipe, ``KEY=VALUE`` each.
        names: for ``system-prompt``: a file of the names of whom to forget, one a line.

    Raises:
        InputError: the method, a setting, base, records or output cannot be used; nothing was written.
        MllmEraserError: the training diverged.
    """
    from mllmeraser.baselines.methods import make_baseline
    from mllmeraser.baselines.recipes import recipe_of
    from mllmeraser.baselines.words import read_names
    from mllmeraser.inference.source import resolve
    from mllmeraser.records.read import read_records

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


def _read(
    base: AnyPath, forget: AnyPath, retain: AnyPath, recipe: AnyPath | None, choices: Mapping[str, Any]
) -> tuple[Source, Recipe, list[Record], Sequence[Record]]:
    """Everything of a computation that is read from files."""
    from mllmeraser.inference.source import read_config, resolve
    from mllmeraser.records.read import read_records
    from mllmeraser.steering.recipe import make_recipe

    source = resolve(base)
    model_type = str(read_config(source.path)["model_type"])
    chosen = make_recipe(model_type, choices, None if recipe is None else Path(recipe))
    return source, chosen, read_records(Path(forget)), read_records(Path(retain))
