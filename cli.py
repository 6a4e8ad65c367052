"""The command line: the list of commands, and how an error is printed. Nothing is computed here.

torch and transformers take seconds to import. So each command imports what it calls only when it runs.
"""

from __future__ import annotations

import io
import sys

import rich_click as click

import mllmeraser
from mllmeraser.commands.baseline import baseline
from mllmeraser.commands.claim import claim
from mllmeraser.commands.compute import compute
from mllmeraser.commands.demo import demo
from mllmeraser.commands.evaluate import evaluate
from mllmeraser.commands.export import export
from mllmeraser.commands.fault import said_of, say
from mllmeraser.commands.import_official import import_official
from mllmeraser.commands.inspect import inspect
from mllmeraser.commands.interference import interference
from mllmeraser.commands.onnx_steer import onnx_steer
from mllmeraser.commands.options import HELP
from mllmeraser.commands.push import push
from mllmeraser.commands.records import records
from mllmeraser.commands.report import report
from mllmeraser.commands.requests import requests
from mllmeraser.commands.sign import sign
from mllmeraser.commands.verify import verify
from mllmeraser.console import console
from mllmeraser.errors import MllmEraserError, shown
from mllmeraser.modeling_patches.format_mllmeraser import SteeringError

INTERRUPTED = 130
# One paragraph each: the help joins the lines of a paragraph.
EXIT_CODES = "\n\n".join(
    (
        "Exit codes:",
        "0 done",
        "1 failed; of a fault of the tool itself, the message names a report to send",
        "2 wrong usage: an option, a file or a record that cannot be used",
        "3 verification failed",
        "4 a quality gate was missed, for example a base that does not refuse",
        "130 interrupted",
    )
)


def main() -> None:
    """Run the command. An error prints one line and exits with a documented code; ``--debug`` shows its traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character shows another
    try:
        code = cli.main(prog_name="mllmeraser", standalone_mode=False) or 0
    except click.ClickException as error:
        say(f"{shown(error.format_message())} (see --help)")
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        console.print("interrupted")
        code = INTERRUPTED
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        text, code = _of(error)
        say(text)
    sys.exit(code)


def _of(error: Exception) -> tuple[str, int]:
    """What is said of an error, and the exit code. Whatever is not known here is a fault of ours."""
    match error:
        case MllmEraserError():
            return str(error), error.exit_code
        case SteeringError():
            return shown(str(error)), MllmEraserError.exit_code
        case OSError() if error.strerror is not None:  # the system's: a full disk, a folder that is not ours to write
            where = "" if error.filename is None else f"{error.filename}: "
            return shown(f"{where}{error.strerror}; mend that and run it again"), MllmEraserError.exit_code
        case MemoryError():
            return "the memory ran out; close other programs, or use a smaller --batch-size", MllmEraserError.exit_code
    return said_of(error, sys.argv[1:], cli.commands), MllmEraserError.exit_code


# The panels of the help, in the order of the work.
COMMANDS = {
    "Start here": (demo,),
    "Requests": (claim, requests),
    "Steering bundles": (compute, import_official, interference),
    "Checkpoints": (export, onnx_steer, verify, sign, push, inspect),
    "Proof": (records, baseline, evaluate, report),
}


@click.group(epilog=EXIT_CODES, context_settings=HELP)
@click.version_option(mllmeraser.__version__, prog_name="mllmeraser")
def cli() -> None:
    """Make a multimodal language model refuse questions about a person.

    No weight changes, and the result is an ordinary Hugging Face checkpoint. In every command BASE is the model as it
    was: a directory, or a Hub id org/name[@revision].
    """


for panel, commands in COMMANDS.items():
    for command in commands:
        cli.add_command(command)
    cli = click.command_panel(panel, commands=[str(command.name) for command in commands])(cli)

if __name__ == "__main__":
    main()
