"""Is this base usable? One step, made before its weights are read: every command that takes a base begins with it.

What a base lacks, transformers fills in without an error: weights with noise, a processor with a bare tokenizer. So the
files, the headers of the weights, the configuration, the tokenizer and the chat template are compared with each other.
The model is built without memory for its weights (torch's device ``meta``), and transformers' own loader says which of
them no file holds; so tied weights, and the names that checkpoints are published under, are as it knows them.

What can be said without torch is in :func:`check_files`.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllmeraser.disk.inside import file_inside
from mllmeraser.errors import InputError, first_line
from mllmeraser.inference.source import DAMAGE, Source, read_config
from mllmeraser.inference.weight_files import INDEX, shard_names
from mllmeraser.modeling_patches.format_mllmeraser import FAMILIES, MODEL_TYPE_PREFIX, SteeringError, family_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin

ADAPTER = "adapter_config.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_PART = re.compile(r"""['"]type['"]\s*:""")  # as Python or JSON print a part of a message
_ASKED = "Who is this?"
_SHOWN = (64, 48)  # the size of a picture to try the processor with
_NAMED = 3


def check_base(source: Source) -> None:
    """Check everything about a base that can be said before its weights are read.

    Raises:
        InputError: the base is steered already, of an unknown family, or not usable.
    """
    if is_steered(source):
        raise InputError(f"{source.path}: already steered; take its base, and export all bundles together")
    try:
        family_of(str(read_config(source.path)["model_type"]))
    except SteeringError as error:
        raise InputError(f"{source.path}/config.json: {error}") from None
    check_model(source)


def is_steered(source: Source) -> bool:
    """Whether this is an export of ours."""
    return str(read_config(source.path)["model_type"]).startswith(MODEL_TYPE_PREFIX)


def check_model(source: Source) -> ProcessorMixin:
    """The same for a model of any family that is no export of ours; returns its processor.

    Raises:
        InputError: it is not usable.
    """
    root = source.path
    check_files(root)
    skeleton = _skeleton(root)
    processor = whole_processor(root, skeleton.config)
    _check_marks(root, processor, skeleton)
    return processor


def whole_processor(root: Path, config: PretrainedConfig) -> ProcessorMixin:
    """The processor in a model's directory, checked against the model's configuration.

    Raises:
        InputError: a part or a setting is missing, a token lies outside the embedding, the tokenizer cannot pad, or the
            chat template does not take what it is given.
    """
    from mllmeraser.inference.processor import load_processor

    model_type = str(config.model_type).removeprefix(MODEL_TYPE_PREFIX)
    with one_line(root, "the processor cannot be read", "; copy or download its files again"):
        processor = load_processor(root, model_type)
    _check_parts(root, processor, model_type)
    _check_settings(root, processor, config)
    _check_tokens(root, processor, config)
    _check_template(root, processor)
    return processor


# ------------------------------------------------------------------------------------------------------------ the files


def check_files(root: Path) -> None:
    """Check the files of a base. This needs no torch.

    Raises:
        InputError: adapter files lie beside the weights, there are no safetensors weights, or a file of weights is
            missing or a link that leaves the directory.
    """
    if (root / ADAPTER).exists():
        raise InputError(
            f"{root / ADAPTER}: an adapter beside the weights, which transformers would add to them; "
            "move its files away if the weights hold it already, otherwise merge it and save the merged model alone"
        )
    names = shard_names(root)
    if not names:
        pickled = sorted(path.name for path in root.iterdir() if path.suffix in _PICKLED)
        found = f" only {pickled[0]}, a pickle, which can run code when it is read" if pickled else " none"
        raise InputError(f"{root}: safetensors weights are needed, found{found}; convert the base or download them")
    for name in sorted(names):
        if not name.endswith(".safetensors"):
            raise InputError(f"{root / INDEX}: '{name}' is not a .safetensors file; convert the base first")
        if not file_inside(root.resolve(), name).is_file():
            raise InputError(f"{root / name}: this shard is missing; download the base again")


# ---------------------------------------------------------------------------------------------------------- the weights


def _skeleton(root: Path) -> PreTrainedModel:
    """The model without values, if the files hold every weight in the shape that the configuration asks for."""
    import torch
    from safetensors import safe_open
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    held: dict[str, torch.Tensor] = {}
    with _quietly(), one_line(root, "cannot be loaded"):
        config = AutoConfig.from_pretrained(root, local_files_only=True, trust_remote_code=False)
        native: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
        for name in shard_names(root):
            with safe_open(root / name, framework="pt") as file:
                shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 - no dictionary
            held |= {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
        model, info = native.from_pretrained(
            None,
            config=config,
            state_dict=held,
            device_map="meta",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    if missing := sorted(info["missing_keys"]):
        named = ", ".join(missing[:_NAMED]) + (", …" if len(missing) > _NAMED else "")
        raise InputError(
            f"{root}: the files hold no weights for {named} ({len(missing)} in all), and transformers would fill them "
            "with noise; copy or download the base again, or save it again with save_pretrained"
        )
    if misfits := sorted(info["mismatched_keys"]):
        name, found, asked = misfits[0]
        raise InputError(
            f"{root}: {name} has the shape {tuple(found)}, but config.json asks for {tuple(asked)}; "
            "give the configuration that belongs to these weights"
        )
    _check_layers(root, model)
    return model


def _check_layers(root: Path, model: PreTrainedModel) -> None:
    """The decoder layers are where the family has them."""
    from torch import nn

    family = FAMILIES.get(model.config.model_type)
    if family is None:
        return
    text = model.config.get_text_config()
    modules = dict(model.named_modules())
    layers = modules.get(f"{family.decoder}.layers")
    if not isinstance(layers, nn.ModuleList) or len(layers) != text.num_hidden_layers:
        raise InputError(
            f"{root}/config.json: the language model is {text.model_type}, whose decoder layers are not in "
            f"{family.decoder}.layers; take a base with another language model"
        )


# -------------------------------------------------------------------------------------------------------- the processor


def _check_parts(root: Path, processor: object, model_type: str) -> None:
    """It is a processor with a tokenizer and a picture processor. AutoProcessor may give one of the two alone."""
    from transformers import ProcessorMixin

    if isinstance(processor, ProcessorMixin) and {"tokenizer", "image_processor"} <= set(processor.get_attributes()):
        return
    family = FAMILIES.get(model_type)
    known = "a class of transformers" if family is None else family.processor
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        named = _json(root / name).get("processor_class")
        if named is not None and named != known:
            raise InputError(f"{root / name}: transformers has no processor {named}; set processor_class to {known}")
    raise InputError(
        f"{root}: its processor is a bare {type(processor).__name__}; add the picture processor's files, "
        f"and set processor_class to {known} in processor_config.json"
    )


def _check_settings(root: Path, processor: ProcessorMixin, config: PretrainedConfig) -> None:
    """Every setting that the processor cannot do without is there, and says the same as the model's."""
    settings = {name: getattr(processor, name) for name in _settings(processor)}
    known = {name: _stated(config, name) for name in settings}
    if lacking := [name for name, value in settings.items() if value is None]:
        add = ", ".join(f'"{name}": {"…" if known[name] is None else json.dumps(known[name])}' for name in lacking)
        raise InputError(f"{root}/processor_config.json: lacks {', '.join(lacking)}; add {add}")
    for name, value in settings.items():
        if known[name] is not None and value != known[name]:
            raise InputError(
                f"{root}/processor_config.json: {name} is {value!r}, but the model's is {known[name]!r}; "
                f'set "{name}": {json.dumps(known[name])}'
            )


def _settings(processor: ProcessorMixin) -> list[str]:
    """What the processor's class is told beside its parts."""
    beside = {"self", "args", "kwargs", "chat_template", *processor.get_attributes()}
    return [name for name in inspect.signature(type(processor).__init__).parameters if name not in beside]


def _stated(config: PretrainedConfig, name: str) -> Any:
    """What the model's configuration says about a setting, if it does."""
    whole = config.to_dict()
    return whole.get(name, whole.get("vision_config", {}).get(name))


def _check_tokens(root: Path, processor: ProcessorMixin, config: PretrainedConfig) -> None:
    """Every token has a row of the embedding, the picture's mark is the model's, and the tokenizer can pad."""
    tokenizer: Any = processor.tokenizer
    rows = config.get_text_config().vocab_size
    token, highest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if highest >= rows:
        raise InputError(
            f"{root}: the tokenizer gives {token!r} the id {highest}, but the embedding ends at {rows - 1}; "
            "take the token out of the tokenizer, or enlarge the base with resize_token_embeddings and save it again"
        )
    if str(config.model_type).removeprefix(MODEL_TYPE_PREFIX) in FAMILIES:  # others name it in ways of their own
        mark = tokenizer.convert_tokens_to_ids(processor.image_token)
        if mark != config.image_token_id:
            raise InputError(
                f"{root}/config.json: the picture's token is {config.image_token_id}, but the tokenizer gives "
                f"{processor.image_token!r} the id {mark}; set image_token_id (image_token_index) to {mark}"
            )
    if tokenizer.pad_token_id is None:
        raise InputError(
            f"{root}/tokenizer_config.json: no pad_token, so prompts cannot be batched; name one, such as "
            f'"pad_token": {json.dumps(tokenizer.eos_token or token)}'
        )


def _check_template(root: Path, processor: ProcessorMixin) -> None:
    """The chat template takes content as parts, and marks a picture; the processor can encode what it writes."""
    from PIL import Image

    from mllmeraser.inference.encoding import render
    from mllmeraser.records.prompts import Prompt

    picture = Image.new("RGB", _SHOWN)
    try:
        plain, shown = (render(processor, Prompt(_ASKED, image)) for image in (None, picture))
    except InputError as error:
        raise InputError(f"{root}: {error}") from None
    if _PART.search(plain + shown):
        raise InputError(
            f"{root}: the chat template takes no content parts, but prints them as a list; put the chat_template.jinja "
            "of the base's publisher there"
        )
    if plain == shown:
        raise InputError(
            f"{root}: the chat template writes no mark for a picture; put the chat_template.jinja of the base's "
            "publisher there"
        )
    with (
        _quietly(),
        one_line(root, "the processor cannot encode a picture", "; give the files of the base's publisher"),
    ):
        processor(text=[shown], images=[picture], return_tensors="pt")


def _check_marks(root: Path, processor: ProcessorMixin, skeleton: PreTrainedModel) -> None:
    """LLaVA's processors are told how many states of the vision tower are no patches, such as CLIP's first."""
    import torch

    name = "num_additional_image_tokens"
    if name not in _settings(processor):
        return
    vision: Any = skeleton.config.vision_config
    side = vision.image_size
    pixels = torch.empty(1, vision.num_channels, side, side, device="meta")
    states = skeleton.get_submodule("model.vision_tower")(pixel_values=pixels).last_hidden_state.shape[1]
    beyond = states - (side // vision.patch_size) ** 2
    if getattr(processor, name) != beyond:
        raise InputError(
            f"{root}/processor_config.json: {name} is {getattr(processor, name)}, but the vision tower has {beyond}; "
            f'set "{name}": {beyond}'
        )


# ------------------------------------------------------------------------------------------------------------- one line


def _json(path: Path) -> dict[str, Any]:
    """A settings file that transformers has read; empty if there is none."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    assert isinstance(found, dict)
    return found


@contextmanager
def one_line(root: Path, otherwise: str, mend: str = "") -> Iterator[None]:
    """Inside the context, whatever transformers raises over the files of a model becomes one line about them.

    Raises:
        InputError: something was raised; ``otherwise`` says what did not succeed, ``mend`` what to do.
    """
    from safetensors import SafetensorError

    try:
        yield
    except InputError:
        raise
    except SafetensorError as error:
        reason = f"a weight file is damaged or cut short ({first_line(error)})"
        raise InputError(f"{root}: {otherwise}: {reason}; copy or download it again") from error
    except DAMAGE as error:
        raise InputError(f"{root}: {otherwise}: {first_line(error)}{mend}") from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' bars, and its warnings about what is said in one line here."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
