"""Null spaces, gate shapes and perturbations, as the command line, a recipe and a bundle write them."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

Kind = Literal["linear", "kernel"]
Scope = Literal["conversation", "prompt", "token"]
Edit = Literal["seal", "add"]
Fit = Literal["positions", "end"]
RidgeScale = Literal["absolute", "relative"]
SHAPES = ("identity", "clip", "dead-zone", "step")
THRESHOLDED = ("dead-zone", "step")


class NullSpace(NamedTuple):
    """How the retain set is left alone: ``ratio``, ``energy`` or ``soft``, with its number (:mod:`.null_space`)."""

    form: Literal["ratio", "energy", "soft"]
    value: float

    def __str__(self) -> str:
        return f"{self.form}:{self.value:g}"

    @classmethod
    def parse(cls, text: str) -> NullSpace:
        """Read ``ratio:0.3``, ``energy:1e-3`` or ``soft:10``.

        Raises:
            ValueError: anything else.
        """
        form, _, number = text.partition(":")
        limits = {"ratio": 1.0, "energy": 1.0, "soft": math.inf}
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if form not in limits or not 0.0 < value <= limits[form] or value == math.inf:
            raise ValueError(f"{text!r} is not ratio:ρ or energy:t (0 to 1) or soft:α (above 0), for example ratio:0.3")
        return cls(form, value)  # type: ignore[arg-type]  # checked against the same three words just above


class GateShape(NamedTuple):
    """φ(g): ``identity`` is g, ``clip`` limits g to [0, 1].

    Below the threshold ``dead-zone`` and ``step`` are 0; from the threshold on they are g and 1.
    """

    name: Literal["identity", "clip", "dead-zone", "step"]
    threshold: float | None = None

    def __str__(self) -> str:
        return self.name if self.threshold is None else f"{self.name}:{self.threshold:g}"

    @property
    def thresholded(self) -> bool:
        """Whether the shape has a threshold: below it the output is the base's, bit for bit."""
        return self.name in THRESHOLDED

    @property
    def needs_threshold(self) -> bool:
        """Whether calibration must still choose the threshold."""
        return self.thresholded and self.threshold is None

    @classmethod
    def parse(cls, text: str) -> GateShape:
        """Read ``identity``, ``clip``, ``dead-zone[:0.3]`` or ``step[:0.5]``; calibration chooses a missing number.

        Raises:
            ValueError: anything else.
        """
        name, colon, number = text.partition(":")
        if name not in SHAPES or (colon and name not in THRESHOLDED):
            raise ValueError(f"{text!r} is not identity, clip, dead-zone[:threshold] or step[:threshold]")
        try:
            threshold = float(number) if colon else None
        except ValueError:
            threshold = math.nan
        if threshold is not None and not math.isfinite(threshold):
            raise ValueError(f"{text!r}: the threshold {number!r} is not a number")
        return cls(name, threshold)  # type: ignore[arg-type]  # checked against the same four words just above


class Perturbation(NamedTuple):
    """What is done to recall pictures: ``none``, ``noise`` or ``pgd``. ε and step are shares of the full range."""

    kind: Literal["none", "noise", "pgd"] = "none"
    epsilon: float = 0.0
    step: float = 0.0
    iterations: int = 0

    def __str__(self) -> str:
        levels = f"{self.epsilon * 255:g}/255"
        if self.kind == "pgd":
            return f"pgd:{levels},{self.step * 255:g}/255,{self.iterations}"
        return "none" if self.kind == "none" else f"noise:{levels}"

    @classmethod
    def parse(cls, text: str) -> Perturbation:
        """Read ``none``, ``noise:8/255`` or ``pgd:8/255,2/255,10`` (ε, step, iterations).

        Raises:
            ValueError: anything else.
        """
        kind, _, rest = text.partition(":")
        parts = rest.split(",")
        try:
            if text == "none":
                return cls()
            if kind == "noise" and len(parts) == 1:
                return cls("noise", _share(parts[0]))
            if kind == "pgd" and len(parts) == 3 and int(parts[2]) > 0:
                return cls("pgd", _share(parts[0]), _share(parts[1]), int(parts[2]))
        except (ValueError, ZeroDivisionError):
            pass
        raise ValueError(f"{text!r} is not none, noise:8/255 or pgd:8/255,2/255,10 (ε, step, iterations)")


def _share(text: str) -> float:
    """Read 8/255 or 0.03, in (0, 1]."""
    above, _, below = text.partition("/")
    value = float(above) / float(below or 1)
    if not 0 < value <= 1:
        raise ValueError(text)
    return value
