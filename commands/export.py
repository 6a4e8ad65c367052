"""`mllmeraser export`: write a checkpoint that steers by itself, or steered ONNX graphs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import rich_click as click

import mllmeraser
from mllmeraser.commands.options import (
    HELP,
    PATH,
    compute_options,
    given,
    hash_option,
    link_option,
    model_options,
    onnx_toggle_option,
    output_options,
    overwrite_option,
    request_id_option,
)
from mllmeraser.commands.reporting import report, report_graphs, suggest
from mllmeraser.console import console
from mllmeraser.errors import InputError

if TYPE_CHECKING:
    from mllmeraser.bundle.bundle import Bundle


@click.command(short_help="Write a checkpoint that steers by itself.", context_settings=HELP)
@click.argument("base")
@click.option(
    "--bundle",
    "bundles",
    type=PATH,
    multiple=True,
    help="A bundle that compute wrote. May be repeated: the checkpoint then holds several requests.",
)
@click.option(
    "--forget", type=PATH, help="Instead of --bundle: the forget set. A bundle is computed first. Needs --retain."
)
@click.option("--retain", type=PATH, help="With --forget: the retain set.")
@click.option("--output", "-o", type=PATH, required=True, help="The directory to write.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["checkpoint", "thin", "onnx"]),
    default="checkpoint",
    show_default=True,
    help="checkpoint: a whole model for from_pretrained. thin: the same without the weights, which loading takes from "
    "the base on the Hub. onnx: graphs for ONNX clients.",
)
@click.option(
    "--base-id",
    metavar="ORG/NAME@REVISION",
    help="With --format thin: where the base is on the Hub. The revision has 40 hex digits.  "
    "[default: where BASE came from]",
)
@onnx_toggle_option
@link_option
@hash_option
@overwrite_option("a directory that is not empty")
@click.option("--dry-run", is_flag=True, help="Print what would be written, and write nothing.")
@request_id_option
@click.option(
    "--work-dir",
    type=PATH,
    help="With --forget: keep finished passes here. A run that was interrupted goes on from them.",
)
@compute_options
@model_options
@output_options
def export(
    base: str,
    bundles: tuple[Path, ...],
    output: Path,
    format_: Literal["checkpoint", "thin", "onnx"],
    base_id: str | None,
    onnx_toggle: Literal["constant", "input"],
    link: Literal["auto", "copy", "hard", "sym"],
    hash_weights: Literal["now", "later"],
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write BASE and its steering as a checkpoint that from_pretrained loads, or as ONNX graphs.

    Give the steering with --bundle, or with --forget and --retain. The options of `compute`, from --request-id on,
    apply in the second case only. The base's weights are linked and never changed.
    """
    from mllmeraser.exporter.directory import check_output
    from mllmeraser.exporter.onnx.api import check_onnx_export
    from mllmeraser.inference.source import resolve

    if bool(bundles) == bool(options["forget"]) or bool(options["forget"]) != bool(options["retain"]):
        raise InputError("give either --bundle (once or several times), or --forget and --retain")
    if format_ == "onnx" and (dry_run or link != "auto" or hash_weights != "now"):
        raise InputError("--format onnx writes every graph anew: leave out --dry-run, --link and --hash")
    if format_ != "thin" and base_id is not None:
        raise InputError("--base-id is about exports without weights: add --format thin")
    if format_ == "thin" and (link != "auto" or hash_weights != "now"):
        raise InputError("--format thin writes no weights, and needs their hashes: leave out --link and --hash")
    if format_ != "onnx" and onnx_toggle != "constant":
        raise InputError("--onnx-toggle is about graphs: add --format onnx")
    steering: Sequence[Path | Bundle] = bundles
    if options["forget"]:
        check = check_onnx_export if format_ == "onnx" else check_output
        check(resolve(base), output, overwrite)  # before the long work, not after it
        steering = [mllmeraser.compute(base, **given(options)).bundle]
    if format_ == "onnx":
        steered = mllmeraser.export_onnx(base, steering, output, toggle=onnx_toggle, overwrite=overwrite)
        report_graphs(as_json, steered, base)
        return
    plan = mllmeraser.export(
        base,
        steering,
        output,
        link=link,
        overwrite=overwrite,
        dry_run=dry_run,
        hash_weights=hash_weights == "now",
        thin=format_ == "thin",
        base_id=base_id,
    )
    report(as_json, plan.document(), plan.lines())
    if plan.unhashed:
        size = sum(file.size for file in plan.unhashed)
        console.print(
            f"[yellow]not hashed:[/] {len(plan.unhashed)} files of weights, {size:,} bytes: verify needs --base, "
            "until the same export with --overwrite and without --hash later completes them",
            soft_wrap=True,
        )
    suggest(f"mllmeraser verify {output} --base {base}" if not dry_run else "the same without --dry-run")
