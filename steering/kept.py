"""Landmarks of what must stay, placed once for all requests that take them.

They say where the base's states lie for what is kept, not which gate they open. So a request can take those that an
earlier one placed, and needs nothing of it; a checkpoint then holds them once, and reads them once.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from mllmeraser.disk.atomic import write_atomically
from mllmeraser.errors import InputError
from mllmeraser.inference.cache import PRIVATE
from mllmeraser.inference.states import States, rows_at
from mllmeraser.steering.features import place_kept, random_signs
from mllmeraser.steering.gate import GateRecipe


class KeptLandmarks:
    """Centres (J, p) of retain states, by layer and form of the gate; placed where there are none yet.

    Args:
        path: a safetensors file that keeps them for the next request; None: they last as long as this object.

    Raises:
        InputError: the file cannot be read.

    Example::

        kept = KeptLandmarks(Path("kept.safetensors"))
        compute(checkpoint, forget, retain, kept=kept)
        compute(checkpoint, others, retain, kept=kept)  # shares its landmarks of what must stay with the first
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._found: dict[str, Tensor] = {}
        if path is not None and path.exists():
            try:
                self._found = load_file(path)
            except (SafetensorError, OSError) as error:
                reason = str(error).splitlines()[0]
                raise InputError(f"{path}: not a readable safetensors file ({reason}); remove it") from None

    def of(self, layer: int, recipe: GateRecipe, retain: States) -> Tensor | None:
        """The landmarks that a gate at this layer takes; None for a linear gate, which has none."""
        if recipe.kind == "linear":
            return None
        name = f"layer-{layer}.projections-{recipe.projections}.landmarks-{recipe.landmarks}.seed-{recipe.seed}"
        if name not in self._found:
            width = rows_at(retain, [0]).shape[-1]
            signs = None if recipe.projections is None else random_signs(recipe.projections, width, recipe.seed)
            self._found[name] = place_kept(retain, recipe.landmarks, recipe.seed, signs)
            if self._path is not None:
                write_atomically(self._path, save(self._found), PRIVATE)
        return self._found[name]
