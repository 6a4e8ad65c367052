"""`mllmeraser requests`: the life of requests, in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import rich_click as click

import mllmeraser
from mllmeraser.commands.options import (
    CAREFUL,
    HELP,
    PATH,
    Command,
    hash_option,
    link_option,
    model_options,
    output_options,
    overwrite_option,
)
from mllmeraser.commands.reporting import report, suggest
from mllmeraser.errors import InputError, QualityGateError, VerificationError

DEFAULT = Path("requests")


def _ledger_option(command: Command) -> Command:
    """Add where the ledger lies."""
    return click.option("--ledger", type=PATH, default=DEFAULT, show_default=True, help="The folder of the ledger.")(
        command
    )


def _retain_option(text: str, required: bool = False) -> Callable[[Command], Command]:
    return click.option("--retain", type=PATH, required=required, help=text)


@click.group(short_help="Keep requests, from letter to letter.", context_settings=HELP)
def requests() -> None:
    """Keep requests to be forgotten in a ledger: what came in, what was decided and done, what is due.

    The ledger is a folder. Its entries name nobody, and cannot be changed unseen. Who a request is about stands in a
    private folder beside them, which can be erased. Every subcommand takes --json, --quiet and --debug.
    """


@requests.command(short_help="Take in a request, or many from a table.", context_settings=HELP)
@click.argument("source", type=PATH, metavar="CLAIM|RECORDS", required=False)
@click.option("--received", metavar="DATE", help="The day on which the letter came, for example 2026-03-31.")
@click.option(
    "--csv",
    "table",
    type=PATH,
    help="Instead of one request, a table: a CSV file with the columns received, and records or claim (a path beside "
    "the file). It may also have name and reference. All lines are checked before the first is written.",
)
@click.option("--name", help="The person's name, for the letter. It stays in the private folder.")
@click.option("--reference", help="Your own number of the case, for the letter. It stays in the private folder.")
@_retain_option("Records of who is to be kept. A request that asks their questions is refused.")
@click.option(
    "--anyway",
    type=click.Choice(["reviewed", "ordered"]),
    panel=CAREFUL,
    help="Accept a request that breaks a rule. reviewed: a person looked at it. ordered: a court said so.",
)
@_ledger_option
@output_options
def add(
    source: Path | None,
    received: str | None,
    table: Path | None,
    name: str | None,
    reference: str | None,
    retain: Path | None,
    anyway: Literal["reviewed", "ordered"] | None,
    ledger: Path,
    as_json: bool,
) -> None:
    """Take in a request: the directory that `mllmeraser claim` wrote, or records about one person.

    The records are copied into the private folder. What the request would close beyond its person is measured. If that
    is too much, the request is refused with the figure (exit code 4). A claim that found nothing ends here: the letter
    can be written.
    """
    if (source is None) == (table is None) or (source is None) != (received is None):
        raise InputError("give CLAIM or RECORDS with --received DATE, or a table with --csv")
    if table is not None and (name is not None or reference is not None):
        raise InputError("--name and --reference are about one request; in a table they are columns")
    calls = mllmeraser.requests(ledger)
    if table is not None:
        told = calls.add_table(table, retain=retain, anyway=anyway)
    else:
        assert source is not None and received is not None
        told = calls.add(source, received, name=name, reference=reference, retain=retain, anyway=anyway)
    report(as_json, told.document(), told.lines())
    if refused := told.facts["refused"]:
        raise QualityGateError(
            f"{refused} of {len(told.facts['added'])} refused, with the figure; after a person has looked: "
            "the same with --anyway reviewed"
        )
    suggest(f"mllmeraser requests list --ledger {ledger}")


@requests.command("list", short_help="Show what is due, in order.", context_settings=HELP)
@_ledger_option
@output_options
def list_(ledger: Path, as_json: bool) -> None:
    """Show every request: what is due first stands first, and what was answered last.

    The last line is the head of the ledger. Whoever notes it can ask later, with `verify`, whether the history is still
    the same.
    """
    told = mllmeraser.requests(ledger).listed()
    report(as_json, told.document(), told.lines())


@requests.command(short_help="Show all entries of a request.", context_settings=HELP)
@click.argument("request", metavar="ID")
@_ledger_option
@output_options
def show(request: str, ledger: Path, as_json: bool) -> None:
    """Show where a request stands, and all of its entries."""
    told = mllmeraser.requests(ledger).show(request)
    report(as_json, told.document(), told.lines())


@requests.command(short_help="Put the answer off by two months, once.", context_settings=HELP)
@click.argument("request", metavar="ID")
@click.option(
    "--reason", type=click.Choice(["complex", "many"]), required=True, help="The request is complex, or there are many."
)
@_ledger_option
@output_options
def extend(request: str, reason: Literal["complex", "many"], ledger: Path, as_json: bool) -> None:
    """Put the answer off by two months, as GDPR Art. 12(3) allows.

    The person must hear of it, and of the reason, within the first month.
    """
    told = mllmeraser.requests(ledger).extend(request, reason)
    report(as_json, told.document(), told.lines())
    suggest(f"mllmeraser requests letter {request} --for subject --ledger {ledger}")


@requests.command(short_help="Compute what waits.", context_settings=HELP)
@click.argument("base")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_retain_option("The retain set: records of what to keep (JSON Lines).", required=True)
@click.option("--recipe", type=PATH, help="A TOML file of options of `compute`, dashes as underscores.")
@_ledger_option
@model_options
@output_options
def compute(
    base: str,
    ids: tuple[str, ...],
    retain: Path,
    recipe: Path | None,
    ledger: Path,
    device: str,
    dtype: str,
    batch_size: int,
    seed: int,
    as_json: bool,
) -> None:
    """Compute the bundles of the requests that wait on BASE, or of these, one after another.

    A run that was killed goes on where it was. Each request costs the same, and needs no other request's records. A
    request whose gate opens on more than 1 % of the general bank is refused with the figure.
    """
    told = mllmeraser.requests(ledger).compute(
        base, retain, ids, recipe=recipe, device=device, dtype=dtype, batch_size=batch_size, seed=seed
    )
    report(as_json, told.document(), told.lines())
    if failed := told.facts["failed"]:
        raise QualityGateError(f"{failed} of {len(told.facts['requests'])} requests have no bundle; see above why")
    suggest(f"mllmeraser requests export {base} -o DIRECTORY --ledger {ledger}")


@requests.command(short_help="Write a checkpoint of all that are active.", context_settings=HELP)
@click.argument("base")
@click.option("--output", "-o", type=PATH, required=True, help="The directory to write.")
@click.option(
    "--private-key", type=PATH, metavar="FILE", help="Also sign the checkpoint with this elliptic-curve key (PEM)."
)
@link_option
@hash_option
@overwrite_option("a directory that is not empty")
@click.option("--dry-run", is_flag=True, help="Print what would be written, and write nothing.")
@_ledger_option
@output_options
def export(
    base: str,
    output: Path,
    private_key: Path | None,
    link: Literal["auto", "copy", "hard", "sym"],
    hash_weights: Literal["now", "later"],
    overwrite: bool,
    dry_run: bool,
    ledger: Path,
    as_json: bool,
) -> None:
    """Write one checkpoint of BASE with every request that is active, and without those that were withdrawn.

    All requests share one budget of false fires. A withdrawn request keeps its share, so that the others stay bit for
    bit as they are.
    """
    told = mllmeraser.requests(ledger).export(
        base,
        output,
        link=link,
        overwrite=overwrite,
        dry_run=dry_run,
        hash_weights=hash_weights == "now",
        private_key=private_key,
    )
    report(as_json, told.document(), told.lines())
    measure = f"mllmeraser requests measure {base} {output} --ledger {ledger}"
    suggest("the same without --dry-run" if dry_run else measure)


@requests.command(short_help="Ask base and checkpoint, and note the figures.", context_settings=HELP)
@click.argument("base")
@click.argument("checkpoint", type=PATH)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_retain_option("Also ask about these records of what is kept; best such as no computation has seen.")
@click.option("--attacks", is_flag=True, help="Also attack the checkpoint (docs/attacks.md).")
@_ledger_option
@model_options
@output_options
def measure(
    base: str,
    checkpoint: Path,
    ids: tuple[str, ...],
    retain: Path | None,
    attacks: bool,
    ledger: Path,
    device: str,
    dtype: str,
    batch_size: int,
    seed: int,
    as_json: bool,
) -> None:
    """Ask BASE and CHECKPOINT, the last export, about every person in it, and note the figures for the letters."""
    told = mllmeraser.requests(ledger).measure(
        base,
        checkpoint,
        ids,
        retain=retain,
        attacks=attacks,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        seed=seed,
    )
    report(as_json, told.document(), told.lines())
    suggest(f"mllmeraser requests letter ID --for subject --ledger {ledger}")


@requests.command(short_help="Withdraw a request.", context_settings=HELP)
@click.argument("request", metavar="ID")
@click.option(
    "--reason",
    type=click.Choice(["person", "mistake", "expired", "ordered"]),
    required=True,
    help="person: the person asked for it. mistake: it was not theirs to make. expired: the ground for it is gone. "
    "ordered: an authority or a court said so.",
)
@_ledger_option
@output_options
def withdraw(
    request: str, reason: Literal["person", "mistake", "expired", "ordered"], ledger: Path, as_json: bool
) -> None:
    """Withdraw a request. The next export is without it, and the others stay bit for bit as they are."""
    told = mllmeraser.requests(ledger).withdraw(request, reason)
    report(as_json, told.document(), told.lines())
    suggest(
        f"mllmeraser requests export BASE -o DIRECTORY --ledger {ledger}"
        if told.facts["needs_export"]
        else f"mllmeraser requests letter {request} --for subject --ledger {ledger}"
    )


@requests.command(short_help="Note that the answer went out.", context_settings=HELP)
@click.argument("request", metavar="ID")
@click.option("--sent", metavar="DATE", help="The day on which it went out.  [default: today]")
@_ledger_option
@output_options
def answered(request: str, sent: str | None, ledger: Path, as_json: bool) -> None:
    """Note that the letter went out to the person. The request is not due any more."""
    told = mllmeraser.requests(ledger).answered(request, sent)
    report(as_json, told.document(), told.lines())


@requests.command(short_help="Erase what leads to the person.", context_settings=HELP)
@click.argument("request", metavar="ID")
@_ledger_option
@output_options
def erase(request: str, ledger: Path, as_json: bool) -> None:
    """Erase the key, the records and the claim of a request. Its entries stay, and are about nobody any more.

    This cannot be undone. The bundle goes too, unless an export holds it.
    """
    told = mllmeraser.requests(ledger).erase(request)
    report(as_json, told.document(), told.lines())


@requests.command(short_help="Check the ledger.", context_settings=HELP)
@click.option("--head", metavar="N:HASH", help="Also check that the ledger had this head, which was noted earlier.")
@click.option("--export", "exports", type=PATH, multiple=True, help="Also check that this is the last export.")
@click.option("--public-key", type=PATH, metavar="FILE", help="Also check who signed, with the public key (PEM).")
@_ledger_option
@output_options
def verify(head: str | None, exports: tuple[Path, ...], public_key: Path | None, ledger: Path, as_json: bool) -> None:
    """Check that no entry was changed, cut or put in, and that records, bundles and signatures fit the entries.

    The exit code is 3 if a promise is broken.
    """
    verified = mllmeraser.requests(ledger).verify(head, exports, public_key)
    marks = {True: "ok    ", False: "FAILED"}
    lines = [f"{marks[check.ok]} {check.name}: {check.detail}" for check in verified.checks]
    report(as_json, verified.document(), lines)
    if failed := [check.name for check in verified.checks if not check.ok]:
        raise VerificationError(f"{ledger}: {len(failed)} check(s) failed: {', '.join(failed)}")


@requests.command(short_help="Sign the ledger's head (OpenSSF).", context_settings=HELP)
@click.option("--private-key", type=PATH, required=True, metavar="FILE", help="The signer's elliptic-curve key (PEM).")
@_ledger_option
@output_options
def sign(private_key: Path, ledger: Path, as_json: bool) -> None:
    """Sign the head of the ledger: nobody else can make its history anew.

    The signature lies in the folder signed, and needs an extra: pip install 'mllmeraser[sign]'.
    """
    told = mllmeraser.requests(ledger).sign(private_key)
    report(as_json, told.document(), told.lines())
    suggest(f"mllmeraser requests verify --public-key FILE --ledger {ledger}")


@requests.command(short_help="Write the letter about a request.", context_settings=HELP)
@click.argument("request", metavar="ID")
@click.option(
    "--for",
    "audience",
    type=click.Choice(["subject", "controller", "auditor"]),
    required=True,
    help="subject: the person; short and plain, with the name if it is kept. controller: your file. auditor: all "
    "entries with their hashes, without a name.",
)
@click.option(
    "--output",
    "-o",
    type=PATH,
    help="The directory for the letter, as HTML and as Markdown.  [default: the request's private folder]",
)
@overwrite_option("letters in --output")
@_ledger_option
@output_options
def letter(
    request: str,
    audience: Literal["subject", "controller", "auditor"],
    output: Path | None,
    overwrite: bool,
    ledger: Path,
    as_json: bool,
) -> None:
    """Write the letter about a request, from the facts of the ledger alone, and print it.

    The letter says where the request stands now: in work, active, refused, withdrawn, or that the model knows nothing.
    """
    told = mllmeraser.requests(ledger).letter(request, audience, output, overwrite=overwrite)
    report(as_json, told.document(), told.lines())
    if audience == "subject":
        suggest(f"mllmeraser requests answered {request} --ledger {ledger}")


@requests.command("report", short_help="Write one page about the ledger.", context_settings=HELP)
@click.argument("request", metavar="[ID]", required=False)
@click.option("--output", "-o", type=PATH, required=True, help="The HTML file to write.")
@overwrite_option("an existing file")
@_ledger_option
@output_options
def report_(request: str | None, output: Path, overwrite: bool, ledger: Path, as_json: bool) -> None:
    """Write one page with the figures of all requests, or of one, with their intervals. It names nobody."""
    told = mllmeraser.requests(ledger).report(output, request, overwrite=overwrite)
    report(as_json, told.document(), told.lines())
