"""The documentation is true: it builds, what it names exists, and README is short."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mllmeraser.cli import cli

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = (*(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")), *sorted(DOCS.glob("*.md")))
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
# Options of other programs that the pages call; those of our own scripts are read from the scripts.
OTHER_PROGRAMS = {
    "--check": "ruff format",
    "--hf-overrides": "vllm serve",
    "--ignore-scripts": "npm install",
    "--local-dir": "hf download",
    "--model": "lmms_eval",
    "--model-impl": "vllm serve",
    "--model_args": "lmms_eval",
    "--no-deps": "pip install",
    "--trust-remote-code": "vllm serve, transformers serve",
}


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", tmp_path / "doctrees"]
    done = subprocess.run([*build, DOCS, tmp_path / "html"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mllmeraser.compute" in (tmp_path / "html" / "api.html").read_text(encoding="utf-8")
    assert "--gate-shape" in (tmp_path / "html" / "cli.html").read_text(encoding="utf-8")


def test_every_option_belongs_to_a_command() -> None:
    ours = set().union(*(options_of(command) for command in commands().values()))
    known = ours | script_options() | set(OTHER_PROGRAMS)
    unknown = [
        f"{page.name}: {option}" for page in PAGES for option in OPTION.findall(text(page)) if option not in known
    ]
    assert unknown == []


def test_every_command_line_gives_its_command_only_options_of_its_own() -> None:
    lines = [(page.name, name, options) for page in PAGES for name, options in command_lines(text(page))]
    assert {"compute", "export", "evaluate"} <= {name for _, name, _ in lines}
    wrong = [
        f"{page}: mllmeraser {name} {option}"
        for page, name, options in lines
        for option in options
        if option not in options_of(commands()[name])
    ]
    assert wrong == []


def test_readme_is_short_and_holds_the_two_commands_that_others_run() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 80
    assert "pip install -c constraints.txt . && mllmeraser demo" in lines
    assert "pip install -c constraints.txt -e '.[test]' && pytest" in lines


def test_every_file_that_a_page_names_is_there() -> None:
    named = {
        (page.name, page.parent / target)
        for page in PAGES
        for target in re.findall(r"\]\(((?!https?:)[^)#]+)", text(page))
    } | {
        (page.name, ROOT / path) for page in PAGES for path in re.findall(r"\b[\w-]+/[\w/-]+\.(?:py|mjs)\b", text(page))
    }
    assert len(named) > len(PAGES)
    assert [f"{page}: {path.relative_to(ROOT)}" for page, path in named if not path.exists()] == []


def commands() -> dict[str, click.Command]:
    """Every command by its words; a group's own commands, too."""
    found = dict(cli.commands)
    for name, command in cli.commands.items():
        if isinstance(command, click.Group):
            found |= {f"{name} {inner}": each for inner, each in command.commands.items()}
    return found


def options_of(command: click.Command) -> set[str]:
    """The long options that a command takes, ``--help`` too."""
    context = click.Context(command)
    names = [name for option in command.get_params(context) for name in (*option.opts, *option.secondary_opts)]
    return {name for name in names if name.startswith("--")}


def script_options() -> set[str]:
    """Options of our own scripts: the benchmarks, the demo's training, the clients."""
    scripts = [path for folder in ("benchmarks", "demo", "tests/clients") for path in (ROOT / folder).rglob("*.py")]
    given = re.compile(r'add_argument\(\s*"(--[\w-]+)"')
    return {option for path in scripts for option in given.findall(path.read_text(encoding="utf-8"))}


def text(page: Path) -> str:
    """A page, with the lines of a command that a backslash continues joined to one."""
    return page.read_text(encoding="utf-8").replace("\\\n", " ")


def command_lines(page: str) -> Iterator[tuple[str, list[str]]]:
    """A command and the options behind it, from each `mllmeraser NAME …` and each code span `NAME …`."""
    whole = re.findall(r"\bmllmeraser ([a-z-]+)([^`|&\n]*)", page)
    spans = re.findall(r"(?<!`)`([a-z-]+) ([^`\n]*)`(?!`)", page)
    for name, rest in (*whole, *spans):
        inner = f"{name} {rest.split()[0]}" if rest.split() else name
        if name in commands():
            yield (inner if inner in commands() else name), OPTION.findall(rest)
