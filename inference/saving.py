"""Saves a base under the names that published checkpoints have.

transformers 4 and 5 read published names. What transformers 5 writes by itself, 4.57 does not read whole: it leaves
``vision_model`` out of the names of a vision tower, and the base of the positions in a key that 4.57 does not know.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

_TOWER, _PUBLISHED_TOWER = "vision_tower.", "vision_tower.vision_model."
_NESTED = ("clip_vision_model", "siglip_vision_model")  # the vision models whose published names say vision_model


def save_base(model: PreTrainedModel, directory: Path, **options: Any) -> None:
    """``model.save_pretrained(directory, **options)``, under published names."""
    model.save_pretrained(directory, **options)
    path = directory / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["text_config"] |= _positions(config["text_config"].get("rope_parameters", {}))
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if config["vision_config"].get("model_type") not in _NESTED:
        return
    for shard in directory.glob("model*.safetensors"):
        tensors = load_file(shard)
        save_file({published_name(name): tensor for name, tensor in tensors.items()}, shard, metadata={"format": "pt"})
    index = directory / "model.safetensors.index.json"
    if index.exists():
        content = json.loads(index.read_text(encoding="utf-8"))
        content["weight_map"] = {published_name(name): file for name, file in content["weight_map"].items()}
        index.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def published_name(name: str) -> str:
    """The published name of a tensor of a model whose vision tower is CLIP's or SigLIP's."""
    if not name.startswith(_TOWER) or name.startswith(_PUBLISHED_TOWER):
        return name
    return _PUBLISHED_TOWER + name.removeprefix(_TOWER)


def _positions(parameters: dict[str, Any]) -> dict[str, Any]:
    """The keys of a text model's rotary positions as transformers 4 reads them; 5 finds ``rope_parameters`` beside."""
    if "full_attention" in parameters:  # Gemma 3: two kinds of layers
        local = parameters["sliding_attention"]["rope_theta"]
        return {"rope_local_base_freq": local, **_positions(parameters["full_attention"])}
    scaling = {key: value for key, value in parameters.items() if key != "rope_theta"}
    keys = {"rope_theta": parameters["rope_theta"]} if "rope_theta" in parameters else {}
    return keys if scaling in ({}, {"rope_type": "default"}) else {**keys, "rope_scaling": scaling}
