"""How much memory a process may still take."""

from __future__ import annotations

import os
from pathlib import Path


def available_bytes() -> int:
    """Physical memory that is free, or held by caches that the kernel gives back; swap does not count."""
    try:
        rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        return int(rows["MemAvailable"].split()[0]) * 1024
    except FileNotFoundError:  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
