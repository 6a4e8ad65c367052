"""P6. No pickle anywhere; the shipped code imports torch, transformers, safetensors and a little of Python.

The shipped files run on strangers' machines under ``trust_remote_code``: everything they may touch is listed here.
"""

from __future__ import annotations

import ast
import io
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import mllmeraser
from mllmeraser import modeling_patches
from mllmeraser.modeling_patches.format_mllmeraser import CODE

ROOT = Path(mllmeraser.__file__).parent
SHIPPED = CODE
ALLOWED = {"torch", "transformers", "safetensors", *(name.removesuffix(".py") for name in CODE)}
ALLOWED |= {
    "collections",
    "contextlib",
    "contextvars",
    "copy",
    "copyreg",
    "dataclasses",
    "functools",
    "hashlib",
    "inspect",
    "itertools",
}
ALLOWED |= {"json", "math", "pathlib", "re", "sys", "types", "typing"}
# What could run a string, reach the network or a process, or look at the environment.
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__", "open", "globals", "input", "breakpoint", "getattr_static"}
FORBIDDEN_ATTRIBUTES = {"environ", "getenv", "putenv", "system", "popen", "urlopen", "hub", "load_url", "import_module"}
FORBIDDEN_ATTRIBUTES |= {"load_state_dict_from_url", "snapshot_download", "hf_hub_download", "loads_pickle"}
PICKLES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
PICKLED = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".npy", ".npz", ".joblib", ".dill")
NOT_INSTALLED = {".cache", ".git", ".venv", "benchmarks", "build", "docs", "shared", "tests"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file of the wheel, built from these sources as it is built for a release."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", ignore=lambda _, names: NOT_INSTALLED & {*names}, symlinks=True)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    subprocess.run([*command, "--wheel-dir", folder, folder / "source"], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as file:
        return {name: file.read(name) for name in file.namelist()}


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1, "transformers fetches one level of relative imports"
            yield from [node.module] if node.module else [alias.name for alias in node.names]


def test_nothing_else_is_shipped_and_the_format_needs_nothing_but_python() -> None:
    folder = Path(modeling_patches.__file__).parent
    assert {path.name for path in folder.glob("*.py")} == {*SHIPPED, "__init__.py"}
    imported = {module.split(".")[0] for module in _imports(_tree(folder / "format_mllmeraser.py"))}
    assert imported <= {*sys.stdlib_module_names}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_files_import_only_what_is_allowed(name: str) -> None:
    imported = {module.split(".")[0] for module in _imports(_tree(Path(modeling_patches.__file__).parent / name))}
    assert imported <= ALLOWED, imported - ALLOWED


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_files_run_no_strings_open_no_network_and_read_no_environment(name: str) -> None:
    for node in ast.walk(_tree(Path(modeling_patches.__file__).parent / name)):
        if isinstance(node, ast.Name):
            assert node.id not in FORBIDDEN_NAMES, f"line {node.lineno}: {node.id}"
        elif isinstance(node, ast.Attribute):
            assert node.attr not in FORBIDDEN_ATTRIBUTES, f"line {node.lineno}: {node.attr}"
            module = node.value.id if isinstance(node.value, ast.Name) else ""
            assert module != "sys" or node.attr == "modules", f"line {node.lineno}: sys.{node.attr}"
            assert (module, node.attr) != ("torch", "load"), f"line {node.lineno}: torch.load reads pickles"


@pytest.mark.slow
def test_nothing_in_the_wheel_reads_or_writes_a_pickle(wheel: dict[str, bytes]) -> None:
    modules = {name: ast.parse(data) for name, data in wheel.items() if name.endswith(".py")}
    assert len(modules) > 50
    for name, tree in modules.items():
        imported = {alias.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
        imported |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert not imported & PICKLES, name
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if (owner, node.func.attr) == ("torch", "load"):
                assert keywords.get("weights_only") == "True", f"{name}, line {node.lineno}"
            assert (owner, node.func.attr) != ("torch", "save"), f"{name}, line {node.lineno}"
            assert keywords.get("allow_pickle", "False") == "False", f"{name}, line {node.lineno}"


def test_the_wheel_holds_no_pickle(wheel: dict[str, bytes]) -> None:
    for name, data in wheel.items():
        assert not name.endswith(PICKLED), name
        # Protocols 2 to 5 begin like this and end with a full stop; protocol 0 is letters, like "c__builtin__".
        assert not (data[:1] == b"\x80" and data[1:2] in b"\x02\x03\x04\x05" and data[-1:] == b"."), name
        assert b"c__builtin__\n" not in data and b"cposix\nsystem" not in data, name
        assert not zipfile.is_zipfile(io.BytesIO(data)), f"{name}: a zip, as torch.save writes it"


def test_the_wheel_is_whole_and_nothing_but_the_package(wheel: dict[str, bytes]) -> None:
    for name in SHIPPED:
        assert wheel[f"mllmeraser/modeling_patches/{name}"] == (ROOT / "modeling_patches" / name).read_bytes()
    assert {name.split("/")[0].removesuffix(".dist-info").split("-")[0] for name in wheel} == {"mllmeraser"}
    found = {path.parent.relative_to(ROOT) for path in ROOT.rglob("__init__.py")}
    packages = {path for path in found if not NOT_INSTALLED & {*path.parts}}
    assert packages == {Path(n).parent.relative_to("mllmeraser") for n in wheel if n.endswith("/__init__.py")}


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
