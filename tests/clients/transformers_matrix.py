"""Exports of every family, loaded and run under several versions of transformers, each in an environment of its own.

    python tests/clients/transformers_matrix.py [VERSION ...] [--work DIR] [--share-torch] [--family FAMILY ...]

A version is ``4.57.6``, ``newest`` (what the package index has) or ``this`` (the running interpreter, no environment
made). Default: 4.57.6 5.8.1 5.12.1 newest. Tiny checkpoints are made here with the tool; ``matrix_probe.py`` then
checks them in each environment, where this package is not installed: native == hook oracle, off == base, no random
weight, fails closed. One line a version and family on stderr, one JSON document on stdout; exit 1 if a check failed.

``--share-torch`` makes the environments see the packages of this one behind their own, so that only transformers and
what it pins is installed: seconds instead of a minute, for CI. Environments in ``--work`` are used again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from builders import bundles, processors, tiny
from builders.hub_cache import BASE_ID, make_cache

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.exporter.base import read_base
from mllmeraser.exporter.directory import export
from mllmeraser.inference.saving import save_base
from mllmeraser.inference.source import Source

HERE = Path(__file__).parent
VERSIONS = ("4.57.6", "5.8.1", "5.12.1", "newest")
TORCH = f"torch=={torch.__version__.split('+')[0]}"


def make_checkpoint(family: tiny.Family, directory: Path) -> None:
    """A base, its export, and what the oracle needs of the steering, under one folder."""
    base, model = directory / "base", tiny.knowing(family)
    save_base(model, base)
    if family == "llava":
        write_processor(base)
    images = {"text": False, "picture": True}
    # The first row names whom the export "sealed" has forgotten.
    prompts = {name: tiny.naming(tiny.prompt(family, 15, 13, image=image), [0]) for name, image in images.items()}
    how: dict[str, Any] = {"steps": 3, "positions": "last", "layers": (1, 2)}
    # Gates that are open on these prompts.
    section, tensors = tiny.steering(model, prompts["text"], **how)
    identity = read_base(Source(base)).identity
    bundle = bundles.bundle(identity, (section, tensors))
    export(Source(base), [bundle], directory / "export")
    make_cache(base, directory / "cache")
    export(Source(base), [bundle], directory / "thin", thin=True, base_id=BASE_ID)
    export(Source(base), [per_token(bundle)], directory / "token")
    (directory / "steering.json").write_text(json.dumps(bundle.steering()))
    save_file(tensors, directory / "bundle.safetensors")
    section, tensors = tiny.recognising(model, steps=3)
    export(Source(base), [bundles.bundle(identity, (section, tensors))], directory / "sealed")
    (directory / "sealed.json").write_text(json.dumps(section))
    save_file(tensors, directory / "sealed.safetensors")
    for name, batch in prompts.items():
        save_file(batch, directory / f"{name}.safetensors")


def per_token(bundle: Bundle) -> Bundle:
    """The same gates, read at every position, with one direction."""
    metadata = bundle.metadata.model_copy(deep=True)
    metadata.gate.scope, metadata.reply_steps, metadata.prompt_positions = "token", 1, "all"
    one = {name: t[:1] if name.endswith(".direction") else t for name, t in bundle.tensors.items()}
    return Bundle(metadata=metadata, tensors=one)


def write_processor(base: Path) -> None:
    """Processor and tokenizer as published, in the form of transformers 4, which 5 reads too."""
    whole = processors.numbered()
    whole.save_pretrained(base)
    whole.image_processor.save_pretrained(base)  # transformers 5 leaves it out (#44623)
    settings = base / "tokenizer_config.json"
    content = json.loads(settings.read_text())
    # By transformers 5 a list, and a class that 4 does not have.
    content |= {"extra_special_tokens": {"image_token": "<image>"}, "tokenizer_class": "PreTrainedTokenizerFast"}
    settings.write_text(json.dumps(content))


def python_of(version: str, work: Path, share_torch: bool) -> Path:
    """The interpreter that has this version, in an environment made now unless it is there already."""
    if version == "this":
        return Path(sys.executable)
    home = work / (version + ("-shared" if share_torch else ""))
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        venv.create(home, with_pip=True, clear=True)
        if share_torch:
            paths = {key: str(home) for key in ("base", "platbase")}
            own = Path(sysconfig.get_path("purelib", vars=paths))
            (own / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n")
        wanted = "transformers>=5" if version == "newest" else f"transformers=={version}"
        others = ["--upgrade"] if version == "newest" else []
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*command, *others, wanted, TORCH, "accelerate", "pillow", "numpy"], check=True)
        (home / "ready").touch()
    return python


def probe(python: Path, directory: Path, home: Path) -> list[dict[str, Any]]:
    """The checks of one family, run by this interpreter."""
    environment = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PATH": ""}
    environment["PYTHONPATH"] = str(HERE.parent)  # the oracle is in tests/builders
    command = [python, HERE / "matrix_probe.py", directory]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=home)
    if done.returncode != 0:
        return [{"check": "runs", "ok": False, "detail": done.stderr.strip().splitlines()[-1]}]
    checks: list[dict[str, Any]] = json.loads(done.stdout)
    return checks


def main() -> int:
    """Make, probe, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", default=VERSIONS)
    parser.add_argument("--work", type=Path, help="keep environments and checkpoints here")
    parser.add_argument("--share-torch", action="store_true")
    parser.add_argument("--family", action="append", choices=tiny.EVERY_FAMILY)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        work = (options.work or Path(scratch)).resolve()
        families = options.family or list(tiny.EVERY_FAMILY)
        for family in families:
            make_checkpoint(family, Path(scratch) / family)
        for version in options.versions:
            python = python_of(version, work, options.share_torch)
            for family in families:
                home = Path(scratch) / f"home-{version}-{family}"
                home.mkdir()
                checks = probe(python, Path(scratch) / family, home)
                failed = [check for check in checks if not check["ok"]]
                rows.append({"version": version, "family": family, "checks": checks})
                said = "; ".join(f"{check['check']}: {check['detail']}" for check in failed)
                print(f"{version:8} {family:16} {said or f'{len(checks)} checks passed'}", file=sys.stderr)
    ok = all(check["ok"] for row in rows for check in row["checks"])
    print(json.dumps({"schema": 1, "ok": ok, "rows": rows}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
