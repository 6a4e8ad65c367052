"""Which decoder layers a recipe means, on a base with a given number of them."""

from __future__ import annotations

from mllmeraser.errors import InputError
from mllmeraser.steering.forms import GateShape
from mllmeraser.steering.recipe import PAPER_SKIPPED_LAYERS, Recipe

MOST_GATE_LAYERS = 12


def recipe_on(recipe: Recipe, num_layers: int) -> Recipe:
    """The recipe with ``all`` layers written out, and checked against the base.

    Raises:
        InputError: the base has no such layer, or the shared gate lies after the first moved layer.
    """
    layers = recipe.layers
    if layers == "all":
        skipped = PAPER_SKIPPED_LAYERS if recipe.preset == "paper" else ()
        layers = tuple(layer for layer in range(num_layers) if layer not in skipped)
    given = [
        *(layers if layers != "auto" else ()),
        *([recipe.gate_layer] if isinstance(recipe.gate_layer, int) else []),
    ]
    if given and max(given) >= num_layers:
        raise InputError(f"layer {max(given)}: this base has {num_layers} layers, 0 to {num_layers - 1}")
    if isinstance(recipe.gate_layer, int) and layers != "auto" and recipe.gate_layer > layers[0]:
        raise InputError(
            f"--gate-layer {recipe.gate_layer}: a shared gate must not lie after the first moved layer, {layers[0]}"
        )
    follows: dict[str, object] = {}
    if recipe.gate_scope == "token":
        follows |= {"gate_layer": "own", "reply_steps": 1, "prompt_positions": "all"}
    if recipe.gate_scope == "conversation" or recipe.edit == "seal":
        follows |= {"prompt_positions": "all"}
    if recipe.gate_scope == "conversation" and recipe.gate_shape == "auto":
        follows |= {"gate_shape": GateShape("step")}  # a conversation is sealed or not
    if recipe.edit == "seal" and recipe.strength == "auto":
        follows |= {"strength": 1.0}  # less would leave something of the state
    return recipe.model_copy(update={"layers": layers, **follows})


def layers_of(recipe: Recipe, num_layers: int) -> tuple[list[int], list[int]]:
    """The layers whose gates may be read, and the layers that may be moved.

    If the recipe leaves them open, gates are read from the second quarter of the layers on: there the base has
    recognised people. The last layer is never read: a push there would move the next token only.
    """
    first, last = num_layers // 4, max(num_layers // 4, num_layers - 2)
    every = list(range(first, last + 1))
    candidates = every[:: -(-len(every) // MOST_GATE_LAYERS)]
    if not isinstance(recipe.layers, tuple):
        readers = [recipe.gate_layer] if isinstance(recipe.gate_layer, int) else candidates
        return readers, list(range(min(readers), num_layers))
    moved = list(recipe.layers)
    if isinstance(recipe.gate_layer, int):
        return [recipe.gate_layer], moved
    if recipe.gate_layer == "own" or recipe.calibration_share == 0:  # nothing is held out to choose by
        return moved, moved
    return sorted({*(layer for layer in candidates if layer < moved[0]), moved[0]}), moved
