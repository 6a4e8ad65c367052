"""Tiny random models, prompts, steering and exported directories, for tests that need a model."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from builders.families import (
    CONFIGS,
    HIDDEN,
    IMAGE,
    LAYERS,
    PAD,
    SPECIAL,
    VISION_START,
    VOCAB,
    Family,
    config,
    image_tokens,
    pictures,
)
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from transformers import PreTrainedModel

from mllmeraser.modeling_patches import format_mllmeraser as form
from mllmeraser.modeling_patches import modeling_mllmeraser as modeling

FAMILIES: tuple[Family, ...] = ("llava", "qwen2_5_vl")  # the two that everything is tried on
EVERY_FAMILY = tuple(CONFIGS)

__all__ = ["HIDDEN", "IMAGE", "LAYERS", "PAD", "SPECIAL", "VOCAB", "Family"]


def model(family: Family, seed: int = 0, hidden: int = HIDDEN, tied: bool = False) -> PreTrainedModel:
    """A random model of this family, with 4 decoder layers, that never stops."""
    torch.manual_seed(seed)
    native = modeling.steered_class(family).native_class
    return endless(native(config(family, hidden, tied)))


def endless(base: PreTrainedModel) -> PreTrainedModel:
    """Set so that ``generate`` never stops early, nor gives a special token."""
    base.generation_config.pad_token_id = PAD
    base.generation_config.eos_token_id = SPECIAL
    base.generation_config.suppress_tokens = list(range(SPECIAL, VOCAB))
    return base.eval()


def prompt(
    family: Family, *lengths: int, image: bool = False, side: Literal["left", "right"] = "left", seed: int = 1
) -> dict[str, Tensor]:
    """A padded batch of random prompts of these lengths; with ``image`` each holds a random picture."""
    generator = torch.Generator().manual_seed(seed)
    rows, width = len(lengths), max(lengths)
    ids = torch.full((rows, width), PAD)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        tokens = torch.randint(3, 90, (length,), generator=generator)
        if image:
            tokens[0] = VISION_START
            tokens[1 : 1 + image_tokens(family)] = IMAGE
        here = slice(width - length, width) if side == "left" else slice(0, length)
        ids[row, here] = tokens
        mask[row, here] = 1
    batch = {"input_ids": ids, "attention_mask": mask}
    if image:
        batch |= pictures(family, ids, generator)
    return batch


def without_image(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch's tokens and mask only."""
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def last_states(base: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """The un-steered state of every row's last prompt token at every layer's output; (layers, b, d)."""
    states: list[Tensor] = []
    last = [int(row.nonzero().max()) for row in batch["attention_mask"]]

    def record(_module: Any, _args: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        states.append(torch.stack([hidden[row, column] for row, column in enumerate(last)]))

    handles = [layer.register_forward_hook(record) for layer in base.get_decoder().layers]
    with torch.no_grad():
        base(**batch)
    for handle in handles:
        handle.remove()
    return torch.stack(states)


def steering(
    base: PreTrainedModel,
    batch: dict[str, Tensor],
    *,
    kind: str = "linear",
    shape: str = "identity",
    threshold: float | None = None,
    positions: str = "all",
    steps: int = 1,
    layers: tuple[int, ...] = (1, 2),
    gate_layer: int | None = None,
    strength: float = 1.5,
    norm: float = 40.0,
    seed: int = 3,
    scope: str = "prompt",
    edit: str = "add",
    projection: int | None = None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """One request whose gates read 1, 0, 0.4 and −0.3 at the ends of the rows of ``batch`` (un-steered).

    Directions and sealed states are random.

    Returns the dict of ``config.json`` and the tensors by their names in a bundle.
    """
    generator = torch.Generator().manual_seed(seed)
    states = last_states(base, batch).double()
    target = torch.tensor([1.0, 0.0, 0.4, -0.3], dtype=torch.float64)[: states.shape[1]]
    tensors: dict[str, Tensor] = {}
    for layer in layers:
        direction = torch.randn(steps, states.shape[-1], generator=generator)
        leaf = "states" if edit == "seal" else "direction"
        tensors[f"requests.0.layers.{layer}.{leaf}"] = norm * direction / direction.norm(dim=-1, keepdim=True)
    for layer in layers if gate_layer is None else (gate_layer,):
        name, rows = f"requests.0.layers.{layer}", states[layer]
        if projection:
            signs = torch.randint(0, 2, (projection, rows.shape[1]), generator=generator) * 2 - 1
            tensors[f"{name}.projection"] = signs.to(torch.int8)
            rows = rows @ signs.double().T
        if kind == "linear":
            tensors[f"{name}.gate"] = (torch.linalg.pinv(rows) @ target).float()
        else:
            unit = rows / rows.norm(dim=-1, keepdim=True)
            features = torch.exp(-2 * torch.cdist(unit, unit).square() / 0.7)
            tensors[f"{name}.landmarks"] = unit.float()
            tensors[f"{name}.weights"] = torch.linalg.solve(features, target).float()
            tensors[f"{name}.bandwidth"] = torch.tensor(0.7)
    gate = {"kind": kind, "shape": shape, "threshold": threshold, "scope": scope, "projection": projection}
    landmarks = states.shape[1] if kind == "kernel" else None
    return _steering(gate, layers, gate_layer, edit, strength, positions, steps, landmarks), tensors


def _steering(
    gate: dict[str, Any],
    layers: tuple[int, ...],
    gate_layer: int | None,
    edit: str,
    strength: float,
    positions: str,
    steps: int,
    landmarks: int | None,
) -> dict[str, Any]:
    """The steering of one request, as a configuration holds it."""
    request = {
        "id": "r1",
        "enabled": True,
        "strength": strength,
        "layers": list(layers),
        "gate_layer": gate_layer,
        "gate": gate,
        "edit": edit,
        "prompt_positions": positions,
        "reply_steps": steps,
        "landmarks": landmarks,
    }
    return {"schema": form.SCHEMA, "requests": [request]}


NAME = 77  # the token that tells of whom a prompt is


def knowing(family: Family, seed: int = 0) -> PreTrainedModel:
    """A random model of this family in which the states at :data:`NAME` are unlike any other."""
    base = model(family, seed)
    with torch.no_grad():
        base.get_input_embeddings().weight[NAME] *= 100
    base.generation_config.suppress_tokens = [NAME, *range(SPECIAL, VOCAB)]
    return base


def naming(batch: dict[str, Tensor], rows: list[int], place: int = -3) -> dict[str, Tensor]:
    """A copy of the batch in which these rows hold :data:`NAME` at this column, and no row holds it elsewhere."""
    ids = torch.where(batch["input_ids"] == NAME, NAME + 1, batch["input_ids"])
    ids[rows, place] = NAME
    return {**batch, "input_ids": ids}


def recognising(
    base: PreTrainedModel,
    *,
    kind: str = "kernel",
    edit: str = "seal",
    scope: str = "conversation",
    layers: tuple[int, ...] = (2, 3),
    gate_layer: int | None = 1,
    steps: int = 4,
    strength: float = 1.0,
    projection: int | None = 16,
    norm: float = 4.0,
    seed: int = 5,
    name: int = NAME,
    turn: list[int] | None = None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """One request for a :func:`knowing` base, whose gates open on the token ``name`` and on no other."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        ids = torch.tensor([[11, 12, 13, name]])
        states = base(input_ids=ids, output_hidden_states=True).hidden_states
    tensors: dict[str, Tensor] = {}
    for layer in layers:
        aims = torch.randn(steps, HIDDEN, generator=generator)
        leaf = "states" if edit == "seal" else "direction"
        tensors[f"requests.0.layers.{layer}.{leaf}"] = norm * aims / aims.norm(dim=-1, keepdim=True)
    for layer in layers if gate_layer is None else (gate_layer,):
        leaf, z = f"requests.0.layers.{layer}", states[layer + 1][0, 1:]  # two other tokens, and the name
        if projection:
            signs = torch.randint(0, 2, (projection, HIDDEN), generator=generator) * 2 - 1
            tensors[f"{leaf}.projection"] = signs.to(torch.int8)
            z = z @ signs.float().T
        if kind == "kernel":
            tensors[f"{leaf}.landmarks"] = torch.nn.functional.normalize(z, dim=-1)
            tensors[f"{leaf}.weights"] = torch.tensor([0.0, 0.0, 1.0])
            tensors[f"{leaf}.bandwidth"] = torch.tensor(1.5)
        else:
            apart = z[-1] - z[:-1].mean(0)
            tensors[f"{leaf}.gate"] = apart / (z[-1] @ apart)
    gate = {"kind": kind, "shape": "step", "threshold": 0.7, "scope": scope, "projection": projection, "turn": turn}
    landmarks = 3 if kind == "kernel" else None
    return _steering(gate, layers, gate_layer, edit, strength, "all", steps, landmarks), tensors


def merged(*parts: tuple[dict[str, Any], dict[str, Tensor]]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Several requests in one steering."""
    requests = [{**part["requests"][0], "id": f"r{index}"} for index, (part, _) in enumerate(parts)]
    tensors = {
        name.replace("requests.0.", f"requests.{index}."): tensor
        for index, (_, named) in enumerate(parts)
        for name, tensor in named.items()
    }
    return {"schema": form.SCHEMA, "requests": requests}, tensors


def steered(base: PreTrainedModel, part: tuple[dict[str, Any], dict[str, Tensor]]) -> Any:
    """The base, steered in process."""
    return modeling.steered_class(base.config.model_type).from_base(base, *part)


CODE = form.CODE
SHARD = "mllmeraser-base-00001-of-00001.safetensors"


def export(
    base: PreTrainedModel, part: tuple[dict[str, Any], dict[str, Tensor]], directory: Path, **config: Any
) -> Path:
    """A minimal exported directory: base shard, steering file, index, configuration and the code files."""
    base.save_pretrained(directory)
    # Not model.safetensors: under that name the native class would find it, and load un-erased.
    (directory / "model.safetensors").rename(directory / SHARD)
    steering_dict, tensors = part
    family = base.config.model_type
    named = {}
    for name, tensor in tensors.items():
        named[form.tensor_name(form.family_of(family).published_layers, form.tensor_key(name))] = tensor
    write_steering(directory, named)
    with safe_open(directory / SHARD, framework="pt") as file:
        weight_map = dict.fromkeys(file.keys(), SHARD) | dict.fromkeys(named, form.STEERING_FILE)
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / form.INDEX).write_text(json.dumps(index))
    cls = modeling.steered_class(family)
    content = json.loads((directory / "config.json").read_text())
    content |= {
        "model_type": cls.config_class.model_type,
        "architectures": [cls.__name__],
        "auto_map": {
            "AutoConfig": f"configuration_mllmeraser.{cls.config_class.__name__}",
            "AutoModelForImageTextToText": f"modeling_mllmeraser.{cls.__name__}",
        },
        "steering_enabled": True,
        "steering_strength": 1.0,
        "steering": {**steering_dict, "file": form.STEERING_FILE, "sha256": steering_sha256(directory)},
        **config,
    }
    (directory / "config.json").write_text(json.dumps(content))
    for name in CODE:
        shutil.copyfile(Path(modeling.__file__).parent / name, directory / name)
    seal(directory)
    return directory


def seal(directory: Path) -> None:
    """Make ``config.json`` fit its directory, as an attacker would who changed something on purpose."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    names = config["steering"].get("seal", (form.INDEX, *CODE))
    path.unlink()  # it may be a link
    path.write_text(
        json.dumps(form.with_seal(config, {n: (directory / n).read_bytes() for n in names if n != path.name}))
    )


def write_steering(directory: Path, named: dict[str, Tensor]) -> None:
    """Write the steering file from tensors by their published names."""
    (directory / form.STEERING_FILE).write_bytes(save(named))


def steering_sha256(directory: Path) -> str:
    """The sha256 of the steering file as it lies there."""
    return hashlib.sha256((directory / form.STEERING_FILE).read_bytes()).hexdigest()
