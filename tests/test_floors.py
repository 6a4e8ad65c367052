"""The house: a room imports only rooms below its own, and two rooms of one floor know nothing of each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = (
    ("errors", "console", "modeling_patches"),
    ("disk", "records", "judging"),
    ("bundle", "inference"),
    ("steering", "exporter", "evaluation", "report"),
    ("baselines", "removals"),
    ("demo",),
    ("api", "benchmarks"),
    ("commands",),
    ("cli",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS, 1) for room in rooms}
NOT_ROOMS = {"__init__", "tests", "docs", "build"}


def files() -> Iterator[tuple[str, Path]]:
    """Every module of the house, and the room it lies in."""
    for path in sorted(ROOT.rglob("*.py")):
        first = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if first not in NOT_ROOMS and not first.startswith("."):
            yield first, path


def imported_rooms(tree: ast.AST) -> Iterator[str]:
    """The room of every import of ours, those inside functions and for type checkers included."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "mllmeraser" else [module]
        elif isinstance(node, ast.ImportFrom):
            names = [f"mllmeraser.{node.module or alias.name}" for alias in node.names]  # however many dots
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            names = [part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "mllmeraser" and rest.partition(".")[0] in FLOOR_OF:
                yield rest.partition(".")[0]


def test_every_module_lies_in_a_room_of_the_plan() -> None:
    assert {room for room, _ in files()} == set(FLOOR_OF)


def test_a_room_imports_only_rooms_below_its_own() -> None:
    upwards = [
        f"{path.relative_to(ROOT)}: {room} (floor {FLOOR_OF[room]}) imports {other} (floor {FLOOR_OF[other]})"
        for room, path in files()
        for other in imported_rooms(ast.parse(path.read_text(encoding="utf-8")))
        if other != room and FLOOR_OF[other] >= FLOOR_OF[room]
    ]
    assert upwards == []
    # Of commands and rooms that are one file each, none may import another of its floor; inside a room all may.


def test_what_travels_with_a_checkpoint_needs_nothing_of_ours() -> None:
    travelling = [path for room, path in files() if room == "modeling_patches"]
    assert len(travelling) > 1
    assert not [path for path in travelling if list(imported_rooms(ast.parse(path.read_text(encoding="utf-8"))))]
