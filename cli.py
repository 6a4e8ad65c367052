"""The command line: the list of commands, and how an error is printed. Nothing is computed here.

torch and transformers take seconds to import. So each command imports what it calls only when it runs.
"""

from __future__ import annotations

import sys

import rich_click as click
from rich.markup import escape

import mllmeraser
from mllmeraser.commands.baseline import baseline
from mllmeraser.commands.compute import compute
from mllmeraser.commands.demo import demo
from mllmeraser.commands.evaluate import evaluate
from mllmeraser.commands.export import export
from mllmeraser.commands.import_official import import_official
from mllmeraser.commands.inspect import inspect
from mllmeraser.commands.interference import interference
from mllmeraser.commands.onnx_steer import onnx_steer
from mllmeraser.commands.options import HELP
from mllmeraser.commands.push import push
from mllmeraser.commands.records import records
from mllmeraser.commands.report import report
from mllmeraser.commands.sign import sign
from mllmeraser.commands.verify import verify
from mllmeraser.console import console
from mllmeraser.errors import MllmEraserError

INTERRUPTED = 130
# One paragraph each: the help joins the lines of a paragraph.
EXIT_CODES = "\n\n".join(
    (
        "Exit codes:",
        "0 done",
        "1 failed",
        "2 wrong usage: an option, a file or a record that cannot be used",
        "3 verification failed",
        "4 a quality gate was missed, for example a base that does not refuse",
        "130 interrupted",
    )
)


def main() -> None:
    """Run the command. An error prints one line and exits with a documented code; ``--debug`` shows its traceback."""
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


# The panels of the help, in the order of the work.
COMMANDS = {
    "Start here": (demo,),
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
