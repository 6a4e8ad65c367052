"""Asks several checkpoints at once, each in its own process (:mod:`mllmeraser.demo.stranger`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from rich.progress import Progress, TaskID

from mllmeraser.console import console
from mllmeraser.demo import stranger
from mllmeraser.errors import MllmEraserError
from mllmeraser.evaluation.items import Reply
from mllmeraser.judging.choices import expected_replies
from mllmeraser.records.record import Record


@dataclass
class _Asked:
    """A checkpoint that is being asked."""

    process: subprocess.Popen[str]
    answers: Path
    errors: Path
    reader: threading.Thread


class Strangers:
    """Processes that answer the same records. Use it as a context: no process outlives it.

    Args:
        folder: holds requests, answers, and the cache of the checkpoints' own code.
        records: the records that every checkpoint is asked, in this order.
    """

    def __init__(self, folder: Path, records: Sequence[Record]) -> None:
        self.folder = folder
        self.records = [_record(record) for record in records]
        self.asked: dict[str, _Asked] = {}
        self.progress = Progress(console=console, transient=True, disable=console.quiet or not console.is_terminal)

    def __enter__(self) -> Strangers:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self.asked.values():
            one.process.kill()
            one.process.wait()
            one.reader.join()
        self.progress.stop()

    def ask(self, name: str, checkpoint: Path, options: Mapping[str, object]) -> None:
        """Start asking a checkpoint; ``options`` go to ``from_pretrained``."""
        request, answers, errors = (self.folder / f"{name}.{what}" for what in ("request", "answers", "errors"))
        content = {
            "checkpoint": str(checkpoint),
            "options": options,
            "records": self.records,
            "threads": 1,
            "output": str(answers),
        }
        request.write_text(json.dumps(content), encoding="utf-8")
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(self.folder / f"{name}.modules")}
        with errors.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-I", stranger.__file__, str(request)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=file,
                env=environment,
                text=True,
            )
        task = self.progress.add_task(f"asking {name}", total=None)
        reader = threading.Thread(target=self._follow, args=(process, task), daemon=True)
        reader.start()
        self.asked[name] = _Asked(process, answers, errors, reader)

    def _follow(self, process: subprocess.Popen[str], task: TaskID) -> None:
        """Show the progress. transformers prints other lines between ours."""
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                match line.split():
                    case ["asked", done, total]:
                        self.progress.update(task, completed=int(done), total=int(total))

    def replies(self, names: Sequence[str]) -> dict[str, list[Reply]]:
        """Wait for these checkpoints and return their replies, in the order of the records.

        Raises:
            MllmEraserError: a checkpoint could not be loaded or asked.
        """
        found = {}
        for name in names:
            one = self.asked[name]
            if one.process.wait() != 0:
                lines = one.errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise MllmEraserError(f"asking the checkpoint {name} failed: {lines[-1] if lines else 'no message'}")
            answers = json.loads(one.answers.read_text(encoding="utf-8"))
            found[name] = [Reply(a["text"], tuple(a["ids"]), tuple(a["log_likelihoods"])) for a in answers]
        return found


def _record(record: Record) -> dict[str, object]:
    """What a stranger is told: the user's turn, and for multiple choice the replies to weigh, but not the answer."""
    turn = record.user_turn
    options = None
    if record.task == "classification" and record.options:
        options = list(expected_replies(turn.text, record.options).values())
    return {"text": turn.text, "image": None if turn.image is None else str(turn.image), "options": options}
