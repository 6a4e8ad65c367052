"""The command line: options, one call into the library, and what is said about the result. Nothing is computed here.

torch and transformers take seconds to import, so the commands import what they call when they are called.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
from rich.markup import escape

import mllmeraser
from mllmeraser.console import console
from mllmeraser.errors import InputError, MllmEraserError, VerificationError
from mllmeraser.steering.recipe import Recipe, make_recipe

if TYPE_CHECKING:
    from mllmeraser.exporter.onnx.directory import SteeredDirectory
    from mllmeraser.inference.source import Source
    from mllmeraser.steering.compute import Computation

Command = TypeVar("Command", bound=Callable[..., Any])
_PATH = click.Path(path_type=Path)

INTERRUPTED = 130
EXIT_CODES = """\b
Exit codes:
  0    done
  1    failed
  2    wrong usage: an option, a file or a record that cannot be used
  3    verification failed
  4    a quality gate was missed, for example a base that does not refuse
  130  interrupted
"""


def main() -> None:
    """Run the command; whatever goes wrong is one line and a documented exit code (a traceback with ``--debug``)."""
    try:
        code = cli.main(prog_name="mllmeraser", standalone_mode=False) or 0
    except click.ClickException as error:
        console.quiet = False
        console.print(f"[bold red]error:[/] {escape(error.format_message())} (see --help)", soft_wrap=True)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        console.print("interrupted")
        code = INTERRUPTED
    except MllmEraserError as error:
        if "--debug" in sys.argv:
            raise
        console.quiet = False  # --quiet is about progress
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        code = error.exit_code
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        what = " ".join(str(error).split()) or "no message"
        console.quiet = False
        console.print(
            f"[bold red]error:[/] {type(error).__name__}: {escape(what)} (run again with --debug)", soft_wrap=True
        )
        code = 1
    sys.exit(code)


class _InOrder(click.Group):
    """Lists the commands in the order of the work."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(mllmeraser.__version__, prog_name="mllmeraser")
def cli() -> None:
    """Make a multimodal language model stop knowing somebody, at inference time, and ship it as a checkpoint."""


# ------------------------------------------------------------------------------------- options of several commands


def _quiet(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    console.quiet = value


def _output_options(command: Command) -> Command:
    """What every command has: a document for programs, silence, tracebacks."""
    for option in (
        click.option("--debug", is_flag=True, expose_value=False, help="Show a traceback when something fails."),
        click.option(
            "--quiet",
            is_flag=True,
            expose_value=False,
            callback=_quiet,
            help="Say nothing on stderr but what went wrong.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout, nothing else."),
    ):
        command = option(command)
    return command


def _model_options(command: Command) -> Command:
    """How a model is run."""
    for option in (
        click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Prompts a forward."),
        click.option(
            "--dtype",
            type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
            default="auto",
            show_default=True,
            help="auto: as stored.",
        ),
        click.option("--device", default="cpu", show_default=True, help="A torch device, or auto to spread the model."),
        click.option("--seed", type=int, default=0, show_default=True, help="Of everything that is random."),
    ):
        command = option(command)
    return command


def _link_option(command: Command) -> Command:
    """How large files come into a directory without being copied."""
    return click.option(
        "--link",
        type=click.Choice(["auto", "copy", "hard", "sym"]),
        default="auto",
        show_default=True,
        help="How the given weights come in; auto: reflink, else hard link (checkpoints only), else copy.",
    )(command)


def _onnx_toggle_option(command: Command) -> Command:
    """How steered graphs are switched off."""
    return click.option(
        "--onnx-toggle",
        type=click.Choice(["constant", "input"]),
        default="constant",
        show_default=True,
        help="ONNX: a constant strength and a twin graph of the base, or a required input steering_strength.",
    )(command)


def _compute_options(command: Command) -> Command:
    """The choices of `compute`: one option for each field of the recipe, with its description as help."""
    for name, field in reversed(Recipe.model_fields.items()):
        extra = field.json_schema_extra
        assert isinstance(extra, dict)
        default = "" if field.default in (None, False) else f"  [default: {field.default}]"
        if field.default is False:
            flag = f"--{name.replace('_', '-')}"
            command = click.option(flag, is_flag=True, default=None, help=field.description)(command)
            continue
        command = click.option(
            f"--{name.replace('_', '-')}",
            type=_PATH if extra["metavar"] == "FILE" else str,
            metavar=str(extra["metavar"]),
            help=f"{field.description}{default}",
        )(command)
    return click.option("--recipe", type=_PATH, help="A recipe.toml of these options, dashes as underscores.")(command)


def _recipe(base: Source, options: Mapping[str, Any]) -> Recipe:
    """The recipe of what was given on the command line; nothing else of it is left out of ``options``."""
    from mllmeraser.inference.source import read_config

    given = {name: options[name] for name in Recipe.model_fields if options[name] is not None}
    return make_recipe(str(read_config(base.path)["model_type"]), given, options["recipe"])


# ------------------------------------------------------------------------------------------------------------ commands


@cli.command(short_help="The steering bundle of one removal request.")
@click.argument("base")
@click.option("--forget", type=_PATH, required=True, help="Records of whom to forget (JSON Lines).")
@click.option("--retain", type=_PATH, required=True, help="Records of what to keep: other people, other knowledge.")
@click.option("--output", "-o", type=_PATH, required=True, help="The bundle, a .safetensors file.")
@click.option("--request-id", default="request-1", show_default=True, help="Names the request; must not name a person.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
@click.option("--compare-directions", "compare", is_flag=True, help="Also show cosines between sources of directions.")
@click.option("--work-dir", type=_PATH, help="Keep finished passes and the trade-off curve here; a killed run goes on.")
@_compute_options
@_model_options
@_output_options
def compute(base: str, output: Path, overwrite: bool, as_json: bool, **options: Any) -> None:
    """Compute the steering bundle of one removal request on BASE (a directory or a Hub id org/name[@revision])."""
    from mllmeraser.files import refuse_existing
    from mllmeraser.inference.processes import processes
    from mllmeraser.steering.bundle import save_bundle

    console.quiet = console.quiet or not processes().leads
    refuse_existing([output], overwrite)
    source = _resolve(base)
    computation = _compute(source, options)
    if not processes().leads:
        return
    save_bundle(computation.bundle, output)
    _report(as_json, {"output": str(output), **computation.document()}, computation.lines())
    _next(f"mllmeraser export {base} --bundle {output} -o DIRECTORY")


def _compute(source: Source, options: Mapping[str, Any]) -> Computation:
    """What `compute` and `export --forget` do: read, load, compute."""
    from mllmeraser.inference.loading import load
    from mllmeraser.steering.compute import compute
    from mllmeraser.steering.samples import read_samples, stream_samples

    recipe = _recipe(source, options)
    forget, retain = read_samples(options["forget"]), stream_samples(options["retain"])
    return compute(
        load(source, device=options["device"], dtype=options["dtype"], work_dir=options["work_dir"]),
        forget,
        retain,
        recipe,
        request_id=options["request_id"],
        seed=options["seed"],
        batch_size=options["batch_size"],
        compare=options.get("compare", False),
    )


@cli.command(short_help="A checkpoint that steers by itself.")
@click.argument("base")
@click.option("--bundle", "bundles", type=_PATH, multiple=True, help="A bundle; several become several requests.")
@click.option("--forget", type=_PATH, help="Instead of a bundle: compute one first, with the options of `compute`.")
@click.option("--retain", type=_PATH, help="With --forget.")
@click.option("--output", "-o", type=_PATH, required=True, help="The directory of the checkpoint.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["checkpoint", "onnx"]),
    default="checkpoint",
    show_default=True,
    help="A checkpoint for from_pretrained, or graphs for ONNX clients.",
)
@_onnx_toggle_option
@_link_option
@click.option("--overwrite", is_flag=True, help="Replace a directory that is not empty.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@click.option("--request-id", default="request-1", show_default=True, help="With --forget: names the request.")
@click.option("--work-dir", type=_PATH, help="With --forget: keep finished forward passes here.")
@_compute_options
@_model_options
@_output_options
def export(
    base: str,
    bundles: tuple[Path, ...],
    output: Path,
    format_: Literal["checkpoint", "onnx"],
    onnx_toggle: Literal["constant", "input"],
    link: Literal["auto", "copy", "hard", "sym"],
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Export BASE with its steering as a checkpoint that plain from_pretrained loads, or as ONNX graphs."""
    from mllmeraser.exporter.directory import check_output, export
    from mllmeraser.exporter.onnx.api import check_onnx_export, onnx_export
    from mllmeraser.steering.bundle import load_bundle

    if bool(bundles) == bool(options["forget"]) or bool(options["forget"]) != bool(options["retain"]):
        raise InputError("give either --bundle (once or several times), or --forget and --retain")
    if format_ == "onnx" and (dry_run or link != "auto"):
        raise InputError("--format onnx writes every graph anew: leave out --dry-run and --link")
    if format_ != "onnx" and onnx_toggle != "constant":
        raise InputError("--onnx-toggle is about graphs: add --format onnx")
    source = _resolve(base)
    if options["forget"]:
        check = check_onnx_export if format_ == "onnx" else check_output
        check(source, output, overwrite)  # before the long work, not after it
        steering = [_compute(source, options).bundle]
    else:
        steering = [load_bundle(path) for path in bundles]
    if format_ == "onnx":
        steered = onnx_export(source, steering, output, toggle=onnx_toggle, overwrite=overwrite, progress=console.print)
        _report_graphs(as_json, steered, base)
        return
    plan = export(source, steering, output, link=link, overwrite=overwrite, dry_run=dry_run)
    _report(as_json, plan.document(), plan.lines())
    _next(f"mllmeraser verify {output} --base {base}" if not dry_run else "the same without --dry-run")


@cli.command("onnx-steer", short_help="Steering for ONNX graphs that exist.")
@click.argument("model_dir", type=_PATH)
@click.option("--bundle", "bundles", type=_PATH, multiple=True, required=True, help="A bundle; may be repeated.")
@click.option("--output", "-o", type=_PATH, required=True, help="The directory of the steered graphs.")
@_onnx_toggle_option
@_link_option
@click.option("--overwrite", is_flag=True, help="Replace a directory that is not empty.")
@_output_options
def onnx_steer(
    model_dir: Path,
    bundles: tuple[Path, ...],
    output: Path,
    onnx_toggle: Literal["constant", "input"],
    link: Literal["auto", "copy", "hard", "sym"],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Insert the steering into every decoder graph of MODEL_DIR; weights are not read, other graphs not touched."""
    from mllmeraser.exporter.onnx.api import onnx_steer, require_onnx
    from mllmeraser.steering.bundle_file import read_bundle

    require_onnx()
    steering = [read_bundle(path) for path in bundles]
    steered = onnx_steer(model_dir, steering, output, toggle=onnx_toggle, link=link, overwrite=overwrite)
    _report_graphs(as_json, steered, str(model_dir))


@cli.command(short_help="Every promise of a checkpoint, checked.")
@click.argument("directory", type=_PATH)
@click.option("--base", help="Also check that every base tensor is this base's.")
@click.option("--public-key", type=_PATH, metavar="FILE", help="Also check the signature, with the signer's PEM key.")
@_output_options
def verify(directory: Path, base: str | None, public_key: Path | None, as_json: bool) -> None:
    """Check every promise of an exported DIRECTORY that can be checked without a GPU; exit code 3 if one is broken."""
    from mllmeraser.exporter.onnx.api import is_onnx_export, verify_onnx
    from mllmeraser.exporter.verify import verify

    onnx = is_onnx_export(directory)
    # A directory of graphs needs no config.json, which a base checkpoint must have.
    found = None if base is None else Path(base) if onnx and Path(base).is_dir() else _resolve(base).path
    verification = (verify_onnx if onnx else verify)(directory, found, public_key)
    marks = {True: "ok    ", False: "FAILED"}
    lines = [f"{marks[check.ok]} {check.name}: {check.detail}" for check in verification.checks]
    _report(as_json, verification.document(), lines)
    if not verification.ok:
        failed = [check.name for check in verification.checks if not check.ok]
        raise VerificationError(f"{directory}: {len(failed)} check(s) failed: {', '.join(failed)}; export it again")
    evaluate = f"mllmeraser evaluate {base or 'BASE'} {directory} --data NAME=FILE.jsonl -o results.json"
    _next(f"mllmeraser sign {directory} --private-key FILE" if onnx else evaluate)


@cli.command(short_help="An OpenSSF signature of a checkpoint.")
@click.argument("directory", type=_PATH)
@click.option("--private-key", type=_PATH, required=True, metavar="FILE", help="An elliptic-curve key, PEM.")
@_output_options
def sign(directory: Path, private_key: Path, as_json: bool) -> None:
    """Sign every file of an exported DIRECTORY, on this machine; needs the extra: pip install 'mllmeraser[sign]'."""
    from mllmeraser.exporter.signing import sign

    signature = sign(directory, private_key)
    _report(as_json, {"schema": 1, "output": str(signature)}, [f"{signature}: signed"])
    _next(f"mllmeraser verify {directory} --public-key FILE")


@cli.command(short_help="What is in a bundle or a checkpoint.")
@click.argument("path", type=_PATH)
@_output_options
def inspect(path: Path, as_json: bool) -> None:
    """Show what is in a bundle file or an exported directory."""
    from mllmeraser.exporter.inspect import inspect, summary

    document = inspect(path)
    _report(as_json, document, summary(document))


@cli.command(short_help="What requests do to each other.")
@click.argument("base")
@click.option("--bundle", "bundles", type=_PATH, multiple=True, required=True, help="A bundle; give all of them.")
@click.option("--forget", type=_PATH, multiple=True, required=True, help="Its forget set; in the order of the bundles.")
@_model_options
@_output_options
def interference(
    base: str, bundles: tuple[Path, ...], forget: tuple[Path, ...], as_json: bool, batch_size: int, **options: Any
) -> None:
    """How far the gates of each bundle's request open on the forget set of every other; run on BASE, un-steered."""
    from mllmeraser.inference.loading import load
    from mllmeraser.steering.bundle import load_bundle
    from mllmeraser.steering.interference import interference
    from mllmeraser.steering.samples import read_samples

    steering, records = [load_bundle(path) for path in bundles], [read_samples(path) for path in forget]
    checkpoint = load(_resolve(base), device=options["device"], dtype=options["dtype"])
    found = interference(checkpoint, steering, records, batch_size)
    _report(as_json, found.document(), found.lines())
    _next(f"mllmeraser export {base} {' '.join(f'--bundle {path}' for path in bundles)} -o DIRECTORY")


@cli.command("import-official", short_help="The authors' dense matrices as a bundle.")
@click.argument("files", nargs=-1, required=True, type=_PATH, metavar="FILE...")
@click.option("--base", required=True, metavar="BASE", help="The model they were made for.")
@click.option("--output", "-o", type=_PATH, required=True, help="The bundle, a .safetensors file.")
@click.option("--request-id", default="request-1", show_default=True, help="Names the request; must not name a person.")
@click.option("--strength", type=float, default=0.25, show_default=True, help="The authors' λ, without its sign.")
@click.option("--row-vectors", is_flag=True, help="The matrices are made for h W instead of W h.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
@_output_options
def import_official(
    files: tuple[Path, ...],
    base: str,
    output: Path,
    request_id: str,
    strength: float,
    row_vectors: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Turn the authors' dense .pt FILEs, one d × d matrix a block, into a bundle; no code in them is run."""
    from mllmeraser.exporter.base import read_base
    from mllmeraser.files import refuse_existing
    from mllmeraser.steering.bundle import save_bundle
    from mllmeraser.steering.official import import_official

    refuse_existing([output], overwrite)
    imported = import_official(
        files,
        read_base(_resolve(base)).identity,
        request_id=request_id,
        strength=strength,
        row_vectors=row_vectors,
    )
    save_bundle(imported.bundle, output)
    _report(as_json, {"output": str(output), **imported.document()}, imported.lines())
    _next(f"mllmeraser export {base} --bundle {output} -o DIRECTORY")


@cli.command(short_help="What is forgotten, and what is kept.")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--data", multiple=True, required=True, metavar="NAME=FILE", help="Records to ask; may be repeated.")
@click.option("--protocol", default="mllmeraser", show_default=True, help="The wording of records without a prompt.")
@click.option("--items", type=_PATH, help="Write every question and reply here (JSON Lines); sensitive.")
@click.option("--output", "-o", type=_PATH, help="Write the results here (JSON).")
@click.option("--overwrite", is_flag=True, help="Replace output files that are there.")
@_model_options
@_output_options
def evaluate(
    models: tuple[str, ...],
    data: tuple[str, ...],
    protocol: str,
    items: Path | None,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
    seed: int,
    device: str,
    dtype: str,
    batch_size: int,
) -> None:
    """Ask MODELs (NAME=PATH or PATH; the first is the base) the records of the data, and score the replies."""
    from mllmeraser.evaluation.inputs import models_from, sets_from
    from mllmeraser.evaluation.protocols import protocol_named
    from mllmeraser.evaluation.run import evaluate
    from mllmeraser.evaluation.table import plain_text
    from mllmeraser.files import refuse_existing, write_atomically

    refuse_existing([path for path in (items, output) if path], overwrite)
    results = evaluate(
        models_from(models, device=device, dtype=dtype),
        sets_from(data),
        protocol=protocol_named(protocol),
        batch_size=batch_size,
        seed=seed,
    )
    document = results.document(None if output is None else str(output))
    if items is not None:
        write_atomically(items, "".join(results.item_lines()).encode())
    if output is not None:
        write_atomically(output, f"{json.dumps(document, indent=2)}\n".encode())
    _report(as_json, document, plain_text(document["rows"]).splitlines())


@cli.command(short_help="All of it, on a small model.")
@click.argument("directory", type=_PATH, default=Path("mllmeraser-demo"))
@click.option("--overwrite", is_flag=True, help="Replace a directory that is not empty.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the questions, the folds and the landmarks.")
@_output_options
def demo(directory: Path, overwrite: bool, seed: int, as_json: bool) -> None:
    """Forget eight fictitious people on a small LLaVA that knows a hundred, and show what became of it.

    Computes the paper's steering and ours, exports both, loads them in a fresh process that cannot import mllmeraser,
    and asks about the forgotten, everybody else and the rest of the world. Writes to DIRECTORY.
    """
    from mllmeraser.demo.run import run
    from mllmeraser.evaluation.table import plain_text

    outcome = run(directory, overwrite=overwrite, seed=seed)
    _report(as_json, outcome.document(), [*plain_text(outcome.rows).splitlines(), "", *outcome.lines()])
    _next(outcome.next_command())


# ----------------------------------------------------------------------------------------------------------- reporting


def _resolve(source: str) -> Source:
    from mllmeraser.inference.source import resolve

    return resolve(source)


def _report(as_json: bool, document: Mapping[str, Any], lines: Iterable[str]) -> None:
    """The result on stdout: one JSON document, or lines for a person."""
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(lines))


def _report_graphs(as_json: bool, steered: SteeredDirectory, base: str) -> None:
    """What `export --format onnx` and `onnx-steer` wrote; what is lost is said on stderr too."""
    _report(as_json, steered.document(), steered.lines())
    for warning in steered.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    _next(f"mllmeraser verify {steered.output} --base {base}")


def _next(command: str) -> None:
    """The last line on stderr names what comes naturally next."""
    console.print(f"[dim]next:[/] {escape(command)}", soft_wrap=True)


if __name__ == "__main__":
    main()
