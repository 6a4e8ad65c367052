"""P6. No pickle anywhere; the shipped code imports torch, transformers, safetensors and a little of Python.

The shipped files run on strangers' machines under ``trust_remote_code``: everything they may touch is listed here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mllmeraser
from mllmeraser import modeling_patches

ROOT = Path(mllmeraser.__file__).parent
SHIPPED = ("configuration_mllmeraser.py", "modeling_mllmeraser.py")
ALLOWED = {"torch", "transformers", "safetensors", "configuration_mllmeraser"}
ALLOWED |= {
    "collections",
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
PACKAGES = ("", "demo", "evaluation", "exporter", "exporter/onnx", "inference", "modeling_patches", "steering")
INSTALLED = [path for package in PACKAGES for path in sorted((ROOT / package).glob("*.py"))]


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1, "transformers fetches one level of relative imports"
            yield from [node.module] if node.module else [alias.name for alias in node.names]


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


@pytest.mark.parametrize("path", INSTALLED, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_installed_reads_or_writes_a_pickle(path: Path) -> None:
    tree = _tree(path)
    imported = {node.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for node in n.names}
    imported |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not imported & PICKLES
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if (owner, node.func.attr) == ("torch", "load"):
            assert keywords.get("weights_only") == "True", f"line {node.lineno}"
        assert (owner, node.func.attr) != ("torch", "save"), f"line {node.lineno}"
        assert keywords.get("allow_pickle", "False") == "False", f"line {node.lineno}"


def test_no_installed_package_is_left_out_above() -> None:
    """The list stands here by hand, so that a new package is looked at once by a person."""
    found = {path.parent for path in ROOT.rglob("__init__.py")}
    ours = {
        path
        for path in found
        if not {"build", "tests", "benchmarks", "docs", "shared"} & {*path.relative_to(ROOT).parts}
    }
    assert {path.parent for path in INSTALLED} >= {path for path in ours if ".venv" not in str(path)}


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
