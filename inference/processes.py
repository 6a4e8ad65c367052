"""The processes that ``accelerate launch`` starts."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list


@dataclass(frozen=True)
class Processes:
    """How many processes there are, and which one this is; a process alone is number 0 of 1."""

    count: int = 1
    rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes the results and talks to the user."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            PartialState().wait_for_everyone()

    def shared_directory(self) -> Path:
        """A temporary directory for all processes; it is removed when the leading one ends."""
        name = [tempfile.mkdtemp(prefix="mllmeraser-")] if self.leads else [""]
        if self.leads:
            atexit.register(shutil.rmtree, name[0], ignore_errors=True)
        if self.count > 1:
            broadcast_object_list(name)
        return Path(name[0])


@cache
def processes() -> Processes:
    """The processes of this run. They connect only if the launcher's environment says that there are several."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    state = PartialState(cpu=os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("true", "1", "yes"))
    return Processes(state.num_processes, state.process_index)
