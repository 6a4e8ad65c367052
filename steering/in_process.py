"""Steer a base in this process, with the code that travels in every checkpoint; no file is written.

:func:`steer` takes a model that the user has loaded. :func:`steered_in_process` serves trials and sequential fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock

import torch
from torch import Tensor
from transformers import PreTrainedModel

from mllmeraser.bundle.bundle import Bundle, load_bundle
from mllmeraser.bundle.metadata import SCHEMA, Base, request_entry
from mllmeraser.errors import InputError
from mllmeraser.inference.loading import STEERED_PREFIX, Checkpoint
from mllmeraser.modeling_patches.format_mllmeraser import SteeringError
from mllmeraser.modeling_patches.modeling_mllmeraser import SteeringMixin, steered_class
from mllmeraser.steering.assembly import assemble
from mllmeraser.steering.gate import Gate
from mllmeraser.steering.intervention import Intervention

_EXCHANGE = Lock()


@contextmanager
def steer(model: PreTrainedModel, bundle: str | Path | Bundle) -> Iterator[PreTrainedModel]:
    """Steer a loaded model while the context lasts. Before and after, it is the same model, bit for bit.

    Inside the context ``model`` gives what the checkpoint of this bundle would give, in ``forward`` and in
    ``generate``. Its weights are neither copied nor changed. Its class, configuration and modules are others until the
    context ends: load, move, convert and train the model outside.

    Args:
        model: a base of a supported family, loaded by its own class, on any device, offloaded or not.
        bundle: a bundle (``compute(…).bundle``), or its file.

    Yields:
        ``model`` itself.

    Raises:
        InputError: ``bundle`` is no bundle or belongs to another base; ``model`` is already steered, is of an
            unsupported family, or has a patched ``forward``.

    Example::

        with mllmeraser.steer(model, "request.safetensors"):
            model.generate(**inputs)
    """
    read = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    with _EXCHANGE:  # of two threads that steer one model, the second finds it steered
        twin = _twin(model, read)
        own_class, own_state = type(model), vars(model)
        model.__class__, model.__dict__ = type(twin), vars(twin)
    try:
        yield model
    finally:
        model.__class__, model.__dict__ = own_class, own_state


def _twin(model: PreTrainedModel, bundle: Bundle) -> SteeringMixin:
    """A steered model that shares every tensor with ``model``."""
    # By model_type, not by class: a checkpoint brings its own copy of the class.
    if model.config.model_type.startswith(STEERED_PREFIX):
        raise InputError("the model is steered already; give its base, and for several bundles export them together")
    try:
        steered = steered_class(model.config.model_type)
        _refuse_another_base(model, bundle.metadata.base)
        twin: SteeringMixin = steered.from_base(model, bundle.steering(), torch_tensors(bundle))
    except SteeringError as error:
        raise InputError(f"the model cannot be steered: {error}") from None
    return twin


def _refuse_another_base(model: PreTrainedModel, base: Base) -> None:
    """Compare what a model in memory shows; it has no ``config.json`` to hash."""
    text = model.config.get_text_config()
    for what, expected, found in (
        ("architecture", base.architecture, type(model).__name__),
        ("model_type", base.model_type, model.config.model_type),
        ("hidden size", base.hidden_size, text.hidden_size),
        ("number of layers", base.num_layers, text.num_hidden_layers),
    ):
        if found != expected:
            raise InputError(
                f"the bundle is of another base: its {what} is {expected}, the model's {found}; load "
                f"{base.repo_id or 'the base that it was computed on'}, or compute a bundle of this model"
            )


def steered_in_process(
    checkpoint: Checkpoint, intervention: Intervention, gates: Mapping[int, Gate], aims: Mapping[int, Tensor]
) -> Checkpoint:
    """A model that shares the base's weights, offloaded ones too, and steers as the exported checkpoint will."""
    form, tensors = assemble(intervention, gates, aims)
    entry = request_entry(
        "trial",
        intervention.where.layers,
        intervention.where.gate_layer,
        form,
        edit=intervention.edit,
        strength=intervention.strength,
        prompt_positions=intervention.prompt_positions,
        reply_steps=intervention.reply_steps,
    )
    steering = {"schema": SCHEMA, "requests": [entry]}
    model = steered_class(checkpoint.model_type).from_base(checkpoint.model, steering, tensors)
    return replace(checkpoint, model=model, steered=True, passes=checkpoint.passes.steered(tensors, entry))


def torch_tensors(bundle: Bundle) -> dict[str, Tensor]:
    """The tensors of a bundle as torch tensors, over the same memory."""
    return {name: torch.from_numpy(array) for name, array in bundle.tensors.items()}
