"""An export again and again, each time with one fault at its n-th step on the disk, until it meets none.

Run as ``python stages.py BASE BUNDLE OUTPUT FAULT…``; prints one JSON object for every run. A step is an audit event of
the interpreter: a file opened, linked, renamed or removed, a folder made, a lock taken. Faults: ``kill`` (SIGKILL to
the process itself), ``interrupt`` (KeyboardInterrupt, as Ctrl-C gives) and ``error`` (an I/O error). Each run is a fork
of this process, which has done the slow imports. All faults are tried with a target to overwrite, ``kill`` also
without. Before the first folder is made there is nothing to leave behind, so only ``error`` is tried there.
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
from pathlib import Path
from typing import Any

from mllmeraser.errors import MllmEraserError
from mllmeraser.exporter.directory import export
from mllmeraser.inference.source import Source
from mllmeraser.steering.bundle import Bundle, load_bundle

STEPS = {"open", "fcntl.flock", "fcntl.ioctl", "shutil.copyfile"}
STEPS |= {f"os.{call}" for call in ("chmod", "link", "listdir", "mkdir", "remove", "rename", "rmdir", "scandir")}
EXIT_CODES = {"done": 0, "refused": 10, "interrupted": 11, "raised something else": 12}


def digest(directory: Path) -> str:
    """One hash for every name and byte of a directory; ``absent`` if there is none."""
    if not directory.exists():
        return "absent"
    found = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        found.update(f"{path.name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return found.hexdigest()


class Fault:
    """Counts the steps once it is armed, and strikes at one of them, once."""

    def __init__(self, kind: str, at: int) -> None:
        self.kind, self.left, self.started = kind, at, kind == "error"

    def __call__(self, event: str, _arguments: tuple[Any, ...]) -> None:
        self.started = self.started or event == "os.mkdir"
        if not self.started or event not in STEPS or self.left == 0:
            return
        self.left -= 1
        if self.left > 0:
            return
        os.write(2, f"{event}\n".encode())
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise KeyboardInterrupt if self.kind == "interrupt" else OSError(errno.EIO, "Input/output error")


def run(base: Path, bundle: Bundle, output: Path, fault: Fault | None, overwrite: bool) -> str:
    """The outcome of one export in a child process: a key of EXIT_CODES, or ``killed``."""
    child = os.fork()
    if child == 0:
        outcome = "raised something else"
        try:
            if fault is not None:
                sys.addaudithook(fault)
            export(Source(base), [bundle], output, overwrite=overwrite)
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
    base, bundle_path, output = map(Path, sys.argv[1:4])
    os.fsync = lambda descriptor: None  # a killed process loses nothing that it wrote; only a power cut would
    bundle, precious = load_bundle(bundle_path), base.parent / "precious"
    precious.mkdir()
    (precious / "weights").write_text("of somebody")
    run(base, bundle, output, None, False)
    names = {digest(output): "complete", digest(precious): "as before", "absent": "absent"}
    for kind in sys.argv[4:]:
        for overwrite in (False, True) if kind == "kill" else (True,):
            for at in itertools.count(1):
                shutil.rmtree(output, ignore_errors=True)
                if overwrite:
                    shutil.copytree(precious, output)
                outcome, events = observed(base, bundle, output, Fault(kind, at), overwrite)
                row = {"fault": kind, "overwrite": overwrite, "at": at, "event": events, "outcome": outcome}
                row |= {"target": names.get(digest(output), "half"), "left": left_of(output)}
                print(json.dumps(row), flush=True)
                if not events:  # the fault lies beyond the last step
                    break


def observed(base: Path, bundle: Bundle, output: Path, fault: Fault, overwrite: bool) -> tuple[str, list[str]]:
    """The outcome of one run, and what it wrote to stderr: the step it was struck at."""
    stderr = os.dup(2)
    with tempfile.TemporaryFile("w+") as file:
        os.dup2(file.fileno(), 2)
        outcome = run(base, bundle, output, fault, overwrite)
        os.dup2(stderr, 2)
        file.seek(0)
        events = file.read().splitlines()
    os.close(stderr)
    return outcome, events


if __name__ == "__main__":
    main()
