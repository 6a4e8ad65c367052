"""An export again and again, each time with one fault at its n-th step on the disk, until it meets none.

Run as ``python stages.py JOB BASE BUNDLE OUTPUT FAULT…``; the jobs are those of ``JOBS``. Prints one JSON object for
every run. A step is an audit event of the interpreter: a file opened, linked, renamed or removed, a folder made, a lock
taken. Faults: ``kill`` (SIGKILL to the process itself), ``interrupt`` (KeyboardInterrupt, as Ctrl-C gives) and
``error`` (an I/O error). Each run is a fork of this process, which has done the slow imports. All faults are tried with
a target to overwrite, ``kill`` also without. Before the lock is made there is nothing to leave behind, so only
``error`` is tried there.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mllmeraser.bundle.bundle import Bundle, load_bundle
from mllmeraser.console import console
from mllmeraser.errors import MllmEraserError
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.onnx import export as graphs
from mllmeraser.exporter.onnx.api import export_onnx, onnx_steer
from mllmeraser.inference.source import Source

STEPS = {"open", "fcntl.flock", "fcntl.ioctl", "shutil.copyfile"}
STEPS |= {f"os.{call}" for call in ("chmod", "link", "listdir", "mkdir", "remove", "rename", "rmdir", "scandir")}
EXIT_CODES = {"done": 0, "refused": 10, "interrupted": 11, "raised something else": 12}


def digest(directory: Path) -> str:
    """One hash for every name and byte of a directory; ``absent`` if there is none."""
    if not directory.exists():
        return "absent"
    found = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(directory)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return found.hexdigest()


Job = Callable[[Path, bool], object]  # output, overwrite


def checkpoint(base: Path, bundle: Bundle) -> Job:
    """``export``."""
    return lambda output, overwrite: export(Source(base), [bundle], output, overwrite=overwrite)


def steer(base: Path, bundle: Bundle) -> Job:
    """``onnx-steer`` of the graphs beside the base, in ``graphs``."""
    return lambda output, overwrite: onnx_steer(base.parent / "graphs", [bundle], output, overwrite=overwrite)


def graphs_of(base: Path, bundle: Bundle) -> Job:
    """``export --format onnx``; the graphs were traced before, because that takes seconds and nothing of the disk."""

    def traced(_base: object, folder: Path, *_: object) -> None:
        shutil.copytree(base.parent / "graphs", folder, dirs_exist_ok=True)

    graphs.export_base = traced
    console.quiet = True  # stderr is for the steps
    return lambda output, overwrite: export_onnx(base, [bundle], output, overwrite=overwrite)


JOBS = {"checkpoint": checkpoint, "onnx-steer": steer, "onnx-export": graphs_of}


class Fault:
    """Counts the steps once it is armed, and strikes at one of them, once."""

    def __init__(self, kind: str, at: int) -> None:
        self.kind, self.left, self.started = kind, at, kind == "error"

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        self.started = self.started or (event == "open" and str(arguments[0]).endswith(".lock"))
        if not self.started or event not in STEPS or self.left == 0:
            return
        self.left -= 1
        if self.left > 0:
            return
        os.write(2, f"{event}\n".encode())
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise KeyboardInterrupt if self.kind == "interrupt" else OSError(errno.EIO, "Input/output error")


def run(job: Job, output: Path, fault: Fault | None, overwrite: bool) -> str:
    """The outcome of one run in a child process: a key of EXIT_CODES, or ``killed``."""
    child = os.fork()
    if child == 0:
        outcome = "raised something else"
        try:
            if fault is not None:
                sys.addaudithook(fault)
            job(output, overwrite)
            outcome = "done"
        except MllmEraserError as error:
            outcome = "refused" if "\n" not in str(error) else outcome
        except KeyboardInterrupt:
            outcome = "interrupted"
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(EXIT_CODES[outcome])
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return "killed"
    return next(name for name, code in EXIT_CODES.items() if code == os.WEXITSTATUS(status))


def left_of(output: Path) -> list[str]:
    """What lies beside the target under the name of an export's temporary folder."""
    return [path.name for path in output.parent.iterdir() if path.name.startswith(f".{output.name}.")]


def main() -> None:
    """Print ``{"fault", "overwrite", "at", "event", "outcome", "target", "left"}`` of every run."""
    base, bundle_path, output = map(Path, sys.argv[2:5])
    os.fsync = lambda descriptor: None  # a killed process loses nothing that it wrote; only a power cut would
    job, precious = JOBS[sys.argv[1]](base, load_bundle(bundle_path)), base.parent / "precious"
    precious.mkdir()
    (precious / "weights").write_text("of an earlier export")
    # --overwrite removes nothing that no manifest lists
    (precious / "mllmeraser.json").write_text(json.dumps({"files": {"weights": {}}}))
    job(output, False)  # here, so that every fork has its imports done
    names = {digest(output): "complete", digest(precious): "as before", "absent": "absent"}
    for kind in sys.argv[5:]:
        for overwrite in (False, True) if kind == "kill" else (True,):
            for at in itertools.count(1):
                shutil.rmtree(output, ignore_errors=True)
                if overwrite:
                    shutil.copytree(precious, output)
                outcome, events = observed(job, output, Fault(kind, at), overwrite)
                row = {"fault": kind, "overwrite": overwrite, "at": at, "event": events, "outcome": outcome}
                row |= {"target": names.get(digest(output), "half"), "left": left_of(output)}
                print(json.dumps(row), flush=True)
                if not events:  # the fault lies beyond the last step
                    break


def observed(job: Job, output: Path, fault: Fault, overwrite: bool) -> tuple[str, list[str]]:
    """The outcome of one run, and what it wrote to stderr: the step it was struck at."""
    stderr = os.dup(2)
    with tempfile.TemporaryFile("w+") as file:
        os.dup2(file.fileno(), 2)
        outcome = run(job, output, fault, overwrite)
        os.dup2(stderr, 2)
        file.seek(0)
        events = file.read().splitlines()
    os.close(stderr)
    return outcome, events


if __name__ == "__main__":
    main()
