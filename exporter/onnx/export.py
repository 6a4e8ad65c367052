"""Export a base as three ONNX graphs, and steer them.

The three modules are written one after the other to a temporary directory beside the output. This directory is then
steered like any other (:mod:`directory`), and its weights are linked into the output. The model is loaded once, and all
graphs are traced over its tensors, so memory holds the weights once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch.export import Dim
from transformers import PreTrainedModel
from transformers.utils import logging

from mllmeraser.bundle.bundle import Bundle
from mllmeraser.disk.staging import staging
from mllmeraser.disk.target import directory_target
from mllmeraser.errors import InputError
from mllmeraser.exporter.base import BaseCheckpoint, check_usable, read_base
from mllmeraser.exporter.distrust import without_dangerous_keys
from mllmeraser.exporter.merge import merge
from mllmeraser.exporter.names import MANIFEST
from mllmeraser.exporter.onnx.client_files import client_files, write_files
from mllmeraser.exporter.onnx.directory import SteeredDirectory, steer_directory
from mllmeraser.exporter.onnx.graphs import GraphPlan, decoder_plan, embed_plan, write_plan
from mllmeraser.exporter.onnx.insert import Toggle
from mllmeraser.exporter.onnx.qwen_vision import QwenVisionEncoder
from mllmeraser.exporter.onnx.wrappers import Decoder, EmbedTokens, LlavaVisionEncoder
from mllmeraser.inference.source import Source

Precision = Literal["fp32", "fp16"]
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
_SUFFIXES = {"fp32": "", "fp16": "_fp16"}
FOLDER = "onnx"
# The families with an export. 0: their positions are (b, s); 3: they are (3, b, s).
POSITION_AXES = {"llava": 0, "qwen2_5_vl": 3}


def export_onnx(
    source: Source,
    bundles: Sequence[Bundle],
    output: Path,
    *,
    toggle: Toggle = "constant",
    precision: Precision = "fp32",
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> SteeredDirectory:
    """Export a base to ONNX and steer it.

    Args:
        precision: of weights, computation and cache. The steering, the inputs and the outputs stay fp32.
        progress: called with one line before each graph.

    Raises:
        InputError: base, bundle or output cannot be used; nothing was written.
    """
    base, output = check_export(source, output, overwrite)
    merge(base, bundles)  # raises if a bundle was not computed on this base
    check_usable(base, bundles[0].metadata.base)
    with staging(output) as folder:
        export_base(base, folder, precision, progress)
        progress("steering the decoder")
        # Each file has one link again when the temporary directory is gone.
        return steer_directory(folder, bundles, output, toggle=toggle, link="hard", overwrite=overwrite)


def check_export(source: Source, output: Path, overwrite: bool) -> tuple[BaseCheckpoint, Path]:
    """The base and the resolved output, both checked.

    Raises:
        InputError: the base's family has no export, or base or output cannot be used.
    """
    base = read_base(source)
    if base.model_type not in POSITION_AXES:
        raise InputError(
            f"{source.path}: no ONNX export for model_type {base.model_type}, only for {', '.join(POSITION_AXES)}; "
            "export its graphs with another tool and steer them with: mllmeraser onnx-steer MODEL_DIR"
        )
    return base, directory_target(output, MANIFEST if overwrite else None, base.root)


def export_base(base: BaseCheckpoint, folder: Path, precision: Precision, progress: Callable[[str], None]) -> None:
    """Write the graphs of a base, not steered yet, and its settings into ``folder``."""
    client_files(base, [], precision)  # raises now, not after the minutes of the export
    progress("loading the weights")
    model = _load(base, _DTYPES[precision])
    (folder / FOLDER).mkdir()
    files: list[str] = []
    for plan in graph_plans(model):
        progress(f"exporting {plan.name}")
        files += write_plan(plan, folder / FOLDER, _SUFFIXES[precision])
    write_files(client_files(base, files, precision), folder)


def graph_plans(model: PreTrainedModel) -> list[GraphPlan]:
    """The three graphs of a model."""
    text: Any = model.config.get_text_config()
    axes = POSITION_AXES[model.config.model_type]
    vision = _qwen_vision(model) if axes else _llava_vision(model)
    return [vision, embed_plan(EmbedTokens(model)), decoder_plan(Decoder(model), text, model.dtype, axes)]


def _load(base: BaseCheckpoint, dtype: torch.dtype) -> PreTrainedModel:
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        native = base.family.native_class
        config = native.config_class.from_dict(without_dangerous_keys(base.config))
        model: PreTrainedModel = native.from_pretrained(
            base.root, config=config, dtype=dtype, use_safetensors=True, local_files_only=True
        ).eval()
        return model
    finally:
        if bar:
            logging.enable_progress_bar()


def _llava_vision(model: PreTrainedModel) -> GraphPlan:
    vision: Any = model.config.vision_config
    pixels = torch.zeros(2, vision.num_channels, vision.image_size, vision.image_size)
    module = LlavaVisionEncoder(model)
    return GraphPlan(
        "vision_encoder", module, (pixels,), ({0: Dim("num_images")},), ["pixel_values"], ["image_features"]
    )


def _qwen_vision(model: PreTrainedModel) -> GraphPlan:
    vision: Any = model.config.vision_config
    merge = vision.spatial_merge_size
    grid = torch.tensor([[1, 2 * merge, 4 * merge], [1, 4 * merge, 2 * merge]])
    channels = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    pixels = torch.zeros(int(grid.prod(1).sum()), channels)
    return GraphPlan(
        "vision_encoder",
        QwenVisionEncoder(model),
        (pixels, grid),
        ({0: Dim("num_patches")}, {0: Dim("num_images")}),
        ["pixel_values", "image_grid_thw"],
        ["image_features"],
    )
