"""Multimodal models whose decoder layers suppress what somebody asked to be forgotten: loading, saving, families.

``steering_mllmeraser.py`` says what the layers do; ``format_mllmeraser.py`` says what a checkpoint holds.

Where the prompt ends, which the layers need only to say a refusal word by word: in ``generate``, the prompt it was
called with; in ``forward``, ``labels`` (their −100 prefix) or ``steering_prompt_length`` (per row, the column of the
first reply token). Without either the layers recognise all the same.

Loading is strict: every file but the base's shards must be what the seal in ``config.json`` says, the steering file
must have the sha256, names and shapes in ``config.steering``, every weight must be found, and nothing may lie there
that transformers would follow elsewhere (an adapter, a ``generate`` of its own); anything else raises, so that no
un-erased model is ever returned by accident. This is suppression at inference: the knowledge stays in the weights, and
whoever holds the files can switch it off.

A *thin* checkpoint holds no weights but the steering: ``config.steering["base"]`` names the base on the Hub, its 40-hex
revision, and the bytes and sha256 of its files. They are found in the Hub's cache or fetched into it, as transformers
would, and are compared before they are loaded.

Parts: steering file · the base of a thin checkpoint · the mixin · base models · families.
"""

import copy
import functools
import hashlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn
from transformers import MODEL_MAPPING, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.utils import cached_file

from .configuration_mllmeraser import CONFIGURATIONS
from .format_mllmeraser import (
    CODE,
    CONFIG,
    FAMILIES,
    FOLLOWED,
    INDEX,
    SHARD,
    STEERING_FILE,
    Family,
    Request,
    SteeringError,
    TensorKey,
    as_json,
    check_seal,
    check_tensors,
    family_of,
    owner_name,
    parse_requests,
    shard_names,
    strengths,
    tensor_key,
    tensor_name,
    with_seal,
    without_native_names,
)
from .steering_mllmeraser import (
    ENDS,
    IDS,
    RequestSteering,
    Steering,
    SteeringTensors,
    cache_of,
    carry,
    change_class,
    install,
)

try:
    from transformers import conversion_mapping
except ImportError:  # until 4.57 goes
    conversion_mapping = None

# ----------------------------------------------------------------------------------------------------- steering file

_DTYPES = {torch.float32: "F32", torch.int8: "I8"}


def check_steering(tensors: Mapping[TensorKey, Tensor], requests: tuple[Request, ...], hidden_size: int) -> None:
    """Names, shapes, dtypes and values against the configuration.

    Raises:
        SteeringError: something is missing, left over, of another shape or dtype, not finite, or a bandwidth ≤ 0.
    """
    forms = {key: (_DTYPES.get(t.dtype, str(t.dtype)), tuple(t.shape)) for key, t in tensors.items()}
    check_tensors(forms, requests, hidden_size)
    for (owner, layer, leaf), tensor in tensors.items():
        if not bool(tensor.isfinite().all()) or (leaf == "bandwidth" and not tensor.item() > 0):
            raise SteeringError(
                f"steering tensor '{leaf}' of request {owner_name(owner)} at layer {layer} has a value that is not "
                "finite, or not positive; export again"
            )


def read_steering(data: bytes, sha256: Any, published_layers: str) -> dict[TensorKey, Tensor]:
    """The tensors of a steering file.

    Args:
        data: its bytes, read once: what is checked is what is used.
        sha256: what ``config.steering["sha256"]`` says of the file's bytes.
        published_layers: the published name of the decoder layers, ``language_model.model.layers`` for LLaVA.

    Raises:
        SteeringError: the bytes are not those the configuration names, or are no steering file of this family.
    """
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SteeringError(f"{STEERING_FILE}: its sha256 is not the one in config.json; fetch it or export again")
    try:
        named = load(data)
    except SafetensorError as error:
        raise SteeringError(f"{STEERING_FILE}: not a safetensors file ({error}); export again") from error
    return {tensor_key(name, published_layers): tensor for name, tensor in named.items()}


def _complete_saved(directory: Path, steering_names: tuple[str, ...], steering: bytes, model_type: str) -> None:
    """After ``save_pretrained``: shards and weight map under names that only we look for, steering file and seal."""
    single, index = directory / f"model.{_UNFINISHED}.safetensors", directory / _UNFINISHED_INDEX
    if single.exists():
        with safe_open(single, framework="pt") as file:
            content: dict[str, Any] = {"metadata": {}, "weight_map": dict.fromkeys(file.keys(), single.name)}
    else:
        content = json.loads(index.read_text(encoding="utf-8"))
    names = shard_names(content["weight_map"].values())
    for former, name in names.items():
        (directory / former).replace(directory / name)
    for path in directory.iterdir():  # of a model of more shards that lay here
        if SHARD.fullmatch(path.name) and path.name not in names.values():
            path.unlink()
    content["weight_map"] = {tensor: names[former] for tensor, former in content["weight_map"].items()}
    content["weight_map"] |= dict.fromkeys(steering_names, STEERING_FILE)
    _replace(directory / STEERING_FILE, steering)
    _replace(directory / INDEX, as_json(content))
    index.unlink(missing_ok=True)
    for name in ("mllmeraser.json", "model.sig"):  # of an export that lay here: a manifest of other files
        (directory / name).unlink(missing_ok=True)
    sealed = {name: (directory / name).read_bytes() for name in ("generation_config.json", INDEX, *CODE)}
    config = without_native_names(json.loads((directory / CONFIG).read_bytes()), model_type)
    _replace(directory / CONFIG, as_json(with_seal(config, sealed)))  # the last: before it nothing is loaded from here


# The variant under which transformers writes weights that are not complete yet.
_UNFINISHED = "unfinished"
_UNFINISHED_INDEX = f"model.safetensors.index.{_UNFINISHED}.json"


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


# -------------------------------------------------------------------------------------- the base of a thin checkpoint


def find_base(steering: dict[str, Any], hub: dict[str, Any]) -> Path | None:
    """The snapshot of the base that a thin checkpoint names, each file the one that was exported; None: not thin.

    In the Hub's cache a large file is named by the sha256 it was fetched with, so its bytes are not read again: that is
    what ``mllmeraser verify DIR`` does. Where a cache does not name them (no symlinks), only their size is compared.

    Args:
        steering: ``config.steering``.
        hub: keywords of ``cached_file``: cache directory, token and the like.

    Raises:
        SteeringError: a file is neither in the cache nor can be fetched, or is not the one that was exported.
    """
    if "base" not in steering:
        return None
    try:
        repo_id, revision, files = (steering["base"][key] for key in ("repo_id", "revision", "files"))
        stated = [(name, entry["bytes"], entry["sha256"]) for name, entry in files.items()]
        plain = all(Path(name).name == name and name.endswith((".safetensors", ".json")) for name in files)
    except (KeyError, TypeError, AttributeError) as error:
        raise SteeringError(f"{CONFIG}: steering.base is damaged ({error!r}); fetch it or export again") from error
    # A local directory of that name must not be taken for the repository: a revision says nothing about it.
    pinned = re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", f"{repo_id}@{revision}") and not Path(repo_id).exists()
    if not pinned or not plain or not stated:
        raise SteeringError(f"{CONFIG}: steering.base names no pinned repository of the Hub; export again")
    where, folders = f"the base {repo_id}@{revision}", set()
    for name, size, sha256 in stated:
        try:
            path = Path(cached_file(repo_id, name, **{**hub, "revision": revision, "subfolder": ""}))
        except OSError as error:
            mend = f"hf download {repo_id} --revision {revision}"
            raise SteeringError(f"{name} of {where} is neither in the cache nor can be fetched; {mend}") from error
        blob = path.resolve().name
        if not name.endswith(".safetensors"):
            blob = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.stat().st_size != size or (re.fullmatch(r"[0-9a-f]{64}", blob) and blob != sha256):
            raise SteeringError(f"{name} of {where} is not the file that was exported; remove it and fetch it again")
        folders.add(path.parent)
    if len(folders) != 1:
        raise SteeringError(f"the files of {where} lie apart; fetch them into one cache")
    return folders.pop()


# --------------------------------------------------------------------------------------------------------- the mixin


def _in_place_of(native: Callable[..., Any], steered: Callable[..., Any]) -> Callable[..., Any]:
    """The method that calls ``steered`` with ``native`` and its arguments by name.

    It shows the native signature, which ``generate`` reads.
    """
    names = tuple(inspect.signature(native).parameters)[1:]

    @functools.wraps(native)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return steered(self, native, {**dict(zip(names, args, strict=False)), **kwargs})

    return method


_prompt_end: ContextVar[int | None] = ContextVar("mllmeraser_prompt_end", default=None)  # of the running generate


def _ends_of(arguments: dict[str, Any], length: Any) -> tuple[int, ...] | None:
    """P of each row by ``steering_prompt_length`` or by the −100 prefix of ``labels``; None: neither is given."""
    labels = arguments.get("labels")
    if length is not None:
        shown = next(arguments[name] for name in ("input_ids", "inputs_embeds") if arguments.get(name) is not None)
        return tuple(int(end) for end in torch.as_tensor(length).reshape(-1).expand(shown.shape[0]))
    if labels is None:
        return None
    cache = cache_of(arguments)
    past = 0 if cache is None else int(cache.get_seq_length())
    reply = torch.cat([labels != -100, labels.new_ones(labels.shape[0], 1, dtype=torch.bool)], dim=1)
    return tuple(past + int(end) for end in reply.int().argmax(dim=1))


class SteeringMixin(PreTrainedModel):
    """Everything the families share; put before the native class, so that ``super()`` is the base model."""

    native_class: ClassVar[type[PreTrainedModel]]
    published_layers: ClassVar[str]  # name of the decoder layers in a published checkpoint
    decoder_path: ClassVar[str]  # name of their parent in memory
    base_class: ClassVar[type[PreTrainedModel]]  # the same below the head
    _keep_in_fp32_modules_strict: Collection[str] | None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        native = vars(cls).get("native_class")
        if native is not None and issubclass(native, GenerationMixin):
            cls.forward = _in_place_of(native.forward, cls._steered_forward)
            cls.prepare_inputs_for_generation = _in_place_of(native.prepare_inputs_for_generation, cls._steered_inputs)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._install_steering()

    def _install_steering(self) -> None:
        """Make the decoder and its layers steer, and give the steered ones their (still empty) tensors."""
        decoder = self._decoder()
        requests = parse_requests(self.config.steering, len(decoder.layers))
        install(decoder, Steering(self.config, requests), self.config.get_text_config().hidden_size)
        self._keep_in_fp32_modules_strict = {*(self._keep_in_fp32_modules_strict or ()), "steering"}

    def _decoder(self) -> Any:
        return self.get_submodule(self.decoder_path)  # until 4.57 goes: get_decoder() finds not all of them

    @property
    def _steering(self) -> Steering:
        steering: Steering = self._decoder().steering
        return steering

    def _steering_modules(self) -> Iterator[SteeringTensors]:
        return (module for module in self.modules() if isinstance(module, SteeringTensors))

    def _fill_steering(self, tensors: dict[TensorKey, Tensor]) -> None:
        """Put the exact values into the model, whatever the loader made of them."""
        marked = hashlib.sha256(repr(self._steering.requests).encode())
        for key in sorted(tensors):
            marked.update(repr(key).encode() + tensors[key].contiguous().cpu().numpy().tobytes())
        self._steering.mark = marked.hexdigest()
        for module in self._steering_modules():
            exact = {leaf: tensors[module.owner, module.layer, leaf] for leaf, _ in module.named_parameters()}
            for leaf, parameter in list(module.named_parameters()):
                if parameter.is_meta:
                    # Offloaded: accelerate fetches it before every forward; transformers up to 5.12 tells it to do so
                    # in the dtype of the model.
                    hook: Any = module._hf_hook
                    hook.weights_map = exact
                else:
                    value = exact[leaf].to(parameter.device, copy=True)
                    module.register_parameter(leaf, nn.Parameter(value, requires_grad=False))
                parameter.requires_grad_(False)
            module.filled = True

    # -- switches, forward and generate

    def steering(self, *, enabled: bool) -> AbstractContextManager[None]:
        """Switch the steering on or off for the calls of this thread (or task) only, while the context lasts.

        ``config.steering_enabled`` is the switch of the whole process.

        Raises:
            SteeringError: ``enabled`` is no boolean.

        Example::

            with model.steering(enabled=False):
                model.generate(**inputs)  # the base
        """
        return self._steering.switched(enabled)

    def _steered_forward(self, forward: Any, arguments: dict[str, Any]) -> Any:
        """Call the native ``forward`` and tell the decoder where each prompt ends, if the caller told it."""
        length = arguments.pop("steering_prompt_length", None)
        if ENDS not in arguments:  # generate puts it there
            ends = _ends_of(arguments, length)
            if ends is not None:
                arguments[ENDS] = ends
        if any(request.turn for request in self._steering.requests):
            arguments[IDS] = arguments.get("input_ids")
        return forward(self, **arguments)

    def _steered_inputs(self, prepare: Any, arguments: dict[str, Any]) -> Any:
        """Call the native ``prepare_inputs_for_generation`` and add where ``generate``'s prompt ends."""
        inputs = prepare(self, **arguments)
        end = _prompt_end.get()
        if end is not None:
            shown = next(inputs[name] for name in ("input_ids", "inputs_embeds") if inputs.get(name) is not None)
            inputs[ENDS] = (end,) * shown.shape[0]
            cache = cache_of(inputs)
            for layer in vars(cache).get("layers", ()) if cache is not None else ():
                carry(layer)  # before a compiled forward, which cannot
        return inputs

    @functools.wraps(GenerationMixin.generate)
    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        given = (kwargs.get("attention_mask"), kwargs.get("inputs_embeds"), inputs, kwargs.get("input_ids"))
        prompt_end = next((tensor.shape[1] for tensor in given if tensor is not None), 1)  # 1: only the BOS token
        # A context variable: a keyword would also reach an assistant model, which rejects it.
        token = _prompt_end.set(prompt_end)
        try:
            return super().generate(inputs, *args, **kwargs)
        finally:
            _prompt_end.reset(token)

    @functools.wraps(GenerationMixin.init_continuous_batching)
    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> Any:
        if any(
            s != 0 and r.scope != "token" for s, r in zip(self._steering.scales(), self._steering.requests, strict=True)
        ):
            raise SteeringError(
                "continuous batching shares one cache among all prompts, which carries no seal; use generate"
            )
        return super().init_continuous_batching(*args, **kwargs)

    # -- from a checkpoint, and to one

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, but strict: seal and steering file are verified first, and every weight must be found.

        The seal is compared with the files as they lie there, whatever keywords change of the configuration. It covers
        everything but the bits of the base's shards: to hash those would double the time of loading, and is what
        ``mllmeraser verify DIR`` does.

        Raises:
            SteeringError: a sealed file, the steering file or a file of a thin checkpoint's base is missing or was
                changed, or a weight is missing.
        """
        name, config = pretrained_model_name_or_path, kwargs.pop("config", None)
        hub = {key: kwargs[key] for key in _HUB_ARGUMENTS if key in kwargs}
        sealed = _read_sealed(name, hub)
        if not isinstance(config, PretrainedConfig):
            given = name if config is None else config
            # The configuration would keep "auto" for its dtype, which the weights are then asked for.
            kept = hub | {key: kwargs.pop(key) for key in ("dtype", "torch_dtype") if key in kwargs}
            config, kwargs = cls.config_class.from_pretrained(given, return_unused_kwargs=True, **kwargs)
            kwargs |= kept
        tensors = cls._read_steering(name, config, sealed, hub)
        with_info = kwargs.pop("output_loading_info", False)
        source, base, config = name, find_base(config.steering, hub), copy.deepcopy(config)
        config.transformers_weights = INDEX if base is None and kwargs.get("variant") is None else None
        if base is not None:
            _refuse_what_is_followed(base, {})
            source, kwargs = base, {key: value for key, value in kwargs.items() if key not in _HUB_ARGUMENTS}
        verified = _verified.set(True)
        try:
            model, info = super().from_pretrained(
                source, *args, config=config, output_loading_info=True, use_safetensors=True, **kwargs
            )
        finally:
            _verified.reset(verified)
        vars(model.config).pop("transformers_weights", None)  # a native configuration would follow it
        for what in ("missing_keys", "mismatched_keys", "error_msgs", "unexpected_keys"):
            # Published checkpoints hold leftovers that transformers ignores; a steering tensor is never one. The base
            # of a thin checkpoint has none of them: they are filled in below, from the file that was checked above.
            one_of_ours = {"unexpected_keys": True, "missing_keys": False if base is not None else None}.get(what)
            names = [str(n) for n in info[what] if one_of_ours in (None, ".steering." in str(n))]
            if names:
                raise SteeringError(f"loading the weights left {what} ({min(names)}); fetch it or export again")
        model._fill_steering(tensors)
        if base is not None:
            model.name_or_path = model.config.name_or_path = str(name)
        return (model, info) if with_info else model

    @classmethod
    def _from_config(cls, config: Any, **kwargs: Any) -> Any:
        """Raises a SteeringError: ``from_config`` reads no steering, and whoever fills the model leaves it out."""
        raise SteeringError(
            "a model made of its configuration alone has no steering: load it with from_pretrained; for a server that "
            "fills the weights itself, compute and export again with --gate-scope token"
        )

    @classmethod
    def _read_steering(
        cls, name: Any, config: Any, sealed: dict[str, Any], hub: dict[str, Any]
    ) -> dict[TensorKey, Tensor]:
        """The verified tensors of the steering file that the configuration names.

        Raises:
            SteeringError: ``config`` says something else of the requests than the ``sealed`` one, switches and
                strengths apart; or the file is not the one it names.
        """
        text = config.get_text_config()
        requests = parse_requests(config.steering, text.num_hidden_layers)
        if not all(_holds(config.steering.get(key), sealed["steering"].get(key)) for key in ("requests", "kept")):
            raise SteeringError(
                "the requests in this configuration are not those that were sealed; change only enabled and strength"
            )
        file, sha256 = config.steering.get("file"), config.steering.get("sha256")
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise SteeringError("config.json: steering.file must name a .safetensors file beside it; export again")
        tensors = read_steering(_read_file(name, file, hub), sha256, cls.published_layers)
        check_steering(tensors, requests, text.hidden_size)
        return tensors

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """As in transformers; writes the variant index and the steering file, so that it loads again steered.

        Raises:
            SteeringError: no request acts, or none ever would; such a checkpoint looks steered and is not.
        """
        if self._hf_peft_config_loaded:  # only the adapter is written
            return super().save_pretrained(save_directory, *args, **kwargs)
        self._refuse_to_save_unsteered()
        if args or kwargs.get("push_to_hub") or kwargs.get("variant"):
            raise SteeringError(f"save_pretrained takes keywords, no push_to_hub and no variant here; {_PUSH}")
        tensors = {
            tensor_name(self.published_layers, (module.owner, module.layer, leaf)): parameter.detach().cpu()
            for module in self._steering_modules()
            for leaf, parameter in module.named_parameters()
        }
        data = save(tensors, metadata={"format": "pt"})
        sha256 = hashlib.sha256(data).hexdigest()
        self.config.steering = {**self.config.steering, "file": STEERING_FILE, "sha256": sha256}
        for key in ("seal", "base"):  # of the files it was loaded from
            self.config.steering.pop(key, None)
        state = kwargs.pop("state_dict", None) or self.state_dict()
        state = {key: value for key, value in state.items() if ".steering." not in key}
        saving = type(self.config).saving
        token = saving.set(True)
        try:
            super().save_pretrained(save_directory, state_dict=state, **{**kwargs, "variant": _UNFINISHED})
        finally:
            saving.reset(token)
        if kwargs.get("is_main_process", True):
            _complete_saved(Path(save_directory), tuple(tensors), data, self.native_class.config_class.model_type)

    def _refuse_to_save_unsteered(self) -> None:
        """Raises a SteeringError unless the requests that run are those of the configuration, and at least one acts."""
        config = self.config
        requests = parse_requests(config.steering, config.get_text_config().num_hidden_layers)
        if requests != self._steering.requests:
            raise SteeringError("config.steering was changed and the model was not; load it again before saving")
        scales = strengths(config.steering_enabled, config.steering_strength, config.steering["requests"])
        if not any(scales) or min(scales) < 0:
            raise SteeringError(
                "the steering is switched off, or its strength is negative; switch it on before saving, or save the "
                "base model"
            )
        for module in self._steering_modules():
            if not isinstance(module, RequestSteering) or not scales[module.request.index]:
                continue
            if module.reads and not module.opens():
                raise SteeringError(
                    f"no state opens the gate of request {module.request.index} at layer {module.layer}; load the "
                    "exported checkpoint again before saving"
                )

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Raises a SteeringError: a repository may be public, and the request is private."""
        raise SteeringError(f"push_to_hub might publish the request; {_PUSH}")

    # -- from a base model in memory

    @classmethod
    def from_base(cls, base: PreTrainedModel, steering: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
        """A steered model that shares every weight and buffer with ``base``, which stays usable and un-steered.

        Args:
            steering: as in ``config.json``; ``file``, ``sha256`` and ``seal`` are not needed.
            tensors: by the names of the steering bundle, ``requests.{i}.layers.{l}.<leaf>``.

        Raises:
            SteeringError: ``base`` is of another family, or the tensors do not fit ``steering`` and ``base``.
        """
        if type(base) is not cls.native_class:
            raise SteeringError(f"{cls.__name__} steers a {cls.native_class.__name__}, not a {type(base).__name__}")
        keyed = {tensor_key(name): tensor for name, tensor in tensors.items()}
        # A new tree of modules whose tensors are those of the base, its non-persistent buffers and offloaded ones too.
        hooks = [vars(module)["_hf_hook"] for module in base.modules() if "_hf_hook" in vars(module)]
        offloaded = [maps for hook in hooks if (maps := vars(hook).get("weights_map")) is not None]
        shared = {id(value): value for value in (*base.parameters(), *base.buffers(), *offloaded)}
        model = copy.deepcopy(base, shared)
        config = model.config
        config.__class__ = cls.config_class
        config.steering_enabled, config.steering_strength = True, 1.0
        config.steering = copy.deepcopy(steering)
        change_class(model, cls)
        model._install_steering()
        check_steering(keyed, model._steering.requests, config.get_text_config().hidden_size)
        for module in model._steering_modules():
            module.to(_computes_on(model._decoder().layers[module.layer].self_attn))
        model._fill_steering(keyed)
        return model


def _computes_on(module: nn.Module) -> Any:
    """The device of a module's weights while it computes: accelerate brings offloaded ones there for every forward."""
    owner = next(part for part in module.modules() if any(True for _ in part.parameters(recurse=False)))
    weight = next(owner.parameters(recurse=False))
    return vars(owner)["_hf_hook"].execution_device if weight.is_meta else weight.device


# Whether the files of the model that is being made have been compared with the seal.
_verified: ContextVar[bool] = ContextVar("mllmeraser_verified", default=False)
# Only these two keep a new repository private.
_PUSH = "run: mllmeraser push DIR org/name, or: hf upload org/name DIR --private"
_HUB_ARGUMENTS = ("cache_dir", "force_download", "proxies", "token", "revision", "local_files_only", "subfolder")


def _read_file(name: Any, file: str, hub: dict[str, Any]) -> bytes:
    """The bytes of a file of a checkpoint, from its directory or from the Hub."""
    try:
        path = None if name is None else cached_file(name, file, **hub)
    except OSError as error:
        raise SteeringError(f"{file}: not found in the checkpoint; fetch it or export again") from error
    if path is None:
        raise SteeringError(f"{file}: not found; load from a directory or a Hub repository")
    return Path(path).read_bytes()


def _read_sealed(name: Any, hub: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a checkpoint as it was sealed, once its sealed files have been compared."""
    data = _read_file(name, CONFIG, hub)
    check_seal(data, functools.partial(_read_file, name, hub=hub))
    _refuse_what_is_followed(name, hub)
    sealed: dict[str, Any] = json.loads(data)
    return sealed


def _holds(given: Any, sealed: Any) -> bool:
    """Whether every fact of the ``sealed`` requests stands in the ``given`` ones, switches and strengths apart."""
    if isinstance(sealed, dict):
        facts = {key: value for key, value in sealed.items() if key not in ("enabled", "strength")}
        return isinstance(given, dict) and all(_holds(given.get(key), value) for key, value in facts.items())
    if isinstance(sealed, list):
        return len(given) == len(sealed) and all(map(_holds, given, sealed))
    return bool(given == sealed)


def _refuse_what_is_followed(name: Any, hub: dict[str, Any]) -> None:
    """Raises a SteeringError if a file lies there that leads transformers past what was sealed."""
    missing = dict.fromkeys(("gated_repo", "missing_entries", "connection_errors"), False)
    quiet = {f"_raise_exceptions_for_{what}": value for what, value in missing.items()}
    for file, harm in FOLLOWED.items():
        if cached_file(name, file, **hub, **quiet) is not None:
            raise SteeringError(f"{file}: lies in {name}, and transformers {harm}; remove it")


# -------------------------------------------------------------------------------------------------------- base models


class SteeredBaseModel(SteeringMixin):
    """The model below the head, as ``AutoModel`` names it: what servers build, by ``from_config``, and fill themselves.

    Their loaders know nothing of ours, so that seal and steering file are verified while the model is made. Only scope
    ``token`` can be served so: nobody tells this model where a prompt ends.
    """

    def __init__(self, config: Any) -> None:
        """As the native class.

        Raises:
            SteeringError: gates of scope ``prompt``, a sealed file or the steering file is missing or was changed.
        """
        super().__init__(config)
        if any(request.scope != "token" for request in self._steering.requests):
            raise SteeringError(
                "a server that fills the model itself keeps no seal beside its cache: load this checkpoint with "
                "AutoModelForImageTextToText, or compute and export again with --gate-scope token"
            )
        if not _verified.get():
            name, commit = config.name_or_path, getattr(config, "_commit_hash", None)
            hub = {} if commit is None else {"revision": commit}
            self._read_steering(name, config, _read_sealed(name, hub), hub)

    @classmethod
    def _from_config(cls, config: Any, **kwargs: Any) -> Any:
        return super(SteeringMixin, cls)._from_config(config, **kwargs)

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Raises a SteeringError: a checkpoint is of the whole model."""
        raise SteeringError("load it with AutoModelForImageTextToText to save it")


# ---------------------------------------------------------------------------------------------------------- families


def _make(name: str, bases: tuple[type, ...], facts: dict[str, Any]) -> type[Any]:
    """A class of this module, where transformers looks it up by its name."""
    cls = type(name, bases, {"__module__": __name__, **facts})
    setattr(sys.modules[__name__], name, cls)
    return cls


def _steered_class(model_type: str, family: Family) -> type[SteeringMixin]:
    """The steered class of a family, and below it that of its base model."""
    native, configuration = getattr(transformers, family.native), CONFIGURATIONS[model_type]
    facts = {"config_class": configuration, "published_layers": family.published_layers}
    cls = _make(
        family.steered,
        (SteeringMixin, native, GenerationMixin),
        {**facts, "native_class": native, "decoder_path": family.decoder},
    )
    body, path = MODEL_MAPPING[native.config_class], family.decoder.removeprefix("model.")
    cls.base_class = _make(
        family.steered_base, (SteeredBaseModel, body), {**facts, "native_class": body, "decoder_path": path}
    )
    # So that save_pretrained also writes the code files and the auto_map.
    cls.register_for_auto_class("AutoModelForImageTextToText")
    configuration.register_for_auto_class("AutoConfig")
    if conversion_mapping is not None:
        # transformers 5 renames published weights for its own classes only; without this the language model of a
        # subclass stays random. 5.8 needs the model_type beside the class name.
        for ours, *names in ((cls, cls.__name__, configuration.model_type), (cls.base_class, family.steered_base)):
            for key in (ours.native_class.__name__, model_type):
                mapping = conversion_mapping.get_checkpoint_conversion_mapping(key)
                if mapping is not None:
                    for name in names:
                        conversion_mapping.register_checkpoint_conversion_mapping(name, mapping, overwrite=True)
                    break
    return cls


STEERED = {model_type: _steered_class(model_type, family) for model_type, family in FAMILIES.items()}


def steered_class(model_type: str) -> type[SteeringMixin]:
    """The steered class for a base's (or its own) ``model_type``.

    Raises:
        SteeringError: the family is not supported.
    """
    cls: type[SteeringMixin] = getattr(sys.modules[__name__], family_of(model_type).steered)
    return cls
