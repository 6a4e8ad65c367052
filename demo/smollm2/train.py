"""Trains the parts of the second demo model: `python -m mllmeraser.demo.train --model smollm2 --out DIR`.

There are four phases. The vision tower alone learns what a picture shows. An adapter (LoRA, arXiv 2106.09685) of the
language model learns the people by name, and to refuse. Then the projector alone puts pictures among the words, for a
few steps. Last, projector and adapter together put faces to the names. Words first, then faces: the other order needs
many times the steps.

The model's own replies to general questions are kept: on them the loss is KL(before ‖ now), over all tokens.

A training that was stopped goes on from its last state, which it saves beside DIR.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaForCausalLM, LlavaForConditionalGeneration, PreTrainedTokenizerFast

from mllmeraser.demo.people import Person
from mllmeraser.demo.smollm2.architecture import ALPHA, PROJECTIONS, RANK, build_model
from mllmeraser.demo.smollm2.batches import Batch, Batches, split
from mllmeraser.demo.smollm2.chat import Conversation, Turn
from mllmeraser.demo.smollm2.corpus import FACES, WORDS, Corpus
from mllmeraser.demo.smollm2.general import General, general
from mllmeraser.demo.smollm2.language_model import load_language_model
from mllmeraser.demo.smollm2.world import world
from mllmeraser.demo.vision import Schedule, train_tower
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.errors import InputError

_SAVE_EVERY = 50  # steps


@dataclass(frozen=True)
class Recipe:
    """The values that decide the result, together with the seed."""

    vision_steps: int = 600
    vision_rate: float = 1.5e-3
    vision_decay: float = 0.1
    words_steps: int = 360
    words_batch: int = 20
    words_rate: float = 2e-3
    words_block: int = 8  # the first whose adapter learns in this phase; gradients need not reach the others
    projector_steps: int = 12
    faces_steps: int = 280
    faces_batch: int = 24
    faces_rate: float = 8e-4
    projector_rate: float = 4e-3
    warm_up: int = 20
    keep: float = 2.0  # the weight of a token of the model's own replies
    reply_tokens: int = 28  # of the model's own replies

    @classmethod
    def smoke(cls) -> Recipe:
        """A recipe that runs every phase in a minute and learns nothing."""
        return cls(
            vision_steps=2,
            words_steps=2,
            words_batch=4,
            words_block=1,
            projector_steps=1,
            faces_steps=2,
            faces_batch=4,
            warm_up=1,
            reply_tokens=2,
        )


@dataclass(frozen=True)
class _Phase:
    """Steps of one kind: `final` is the share of the rate left at the end, `block` the first whose adapter learns."""

    name: str
    shares: Mapping[str, float]
    steps: int
    batch: int
    adapter_rate: float
    projector_rate: float
    final: float
    block: int = 0


def phases(recipe: Recipe) -> list[_Phase]:
    """The phases after the tower's."""
    rate, batch = recipe.projector_rate, recipe.faces_batch
    return [
        _Phase("words", WORDS, recipe.words_steps, recipe.words_batch, recipe.words_rate, 0.0, 0.2, recipe.words_block),
        _Phase("projector", FACES, recipe.projector_steps, batch, 0.0, rate, 1.0),
        _Phase("faces", FACES, recipe.faces_steps, batch, recipe.faces_rate, rate, 0.0),
    ]


class Trainer:
    """One training, of which every state can be saved.

    Args:
        language_model: the model to teach, and its tokenizer.
        work: a directory for the states.
        without: people who are never shown nor named.
        rounded: multiply in bf16. A processor without instructions for it is ten times slower so.
        workers: threads, each of which takes its part of a batch.
    """

    def __init__(
        self,
        language_model: LlamaForCausalLM,
        tokenizer: PreTrainedTokenizerFast,
        recipe: Recipe,
        seed: int,
        device: str,
        work: Path,
        without: Collection[Person] = (),
        *,
        rounded: bool = False,
        workers: int = 1,
    ) -> None:
        torch.manual_seed(seed)
        self.recipe, self.seed, self.device, self.work, self.tokenizer = recipe, seed, device, work, tokenizer
        self.without, self.rounded = without, rounded
        self._workers = ThreadPoolExecutor(workers)
        self._parts = workers
        self.model = build_model(language_model, tokenizer).to(device)
        self.peft = _adapted(self.model)
        self.model.requires_grad_(False)
        work.mkdir(parents=True, exist_ok=True)

    @property
    def _projector(self) -> list[nn.Parameter]:
        return list(self.model.model.multi_modal_projector.parameters())

    def _adapter(self, block: int = 0) -> list[nn.Parameter]:
        """The adapter's weights from a block on."""
        layers = self.model.model.language_model.layers[block:]
        return [weight for name, weight in layers.named_parameters() if "lora_" in name]

    def train(self) -> None:
        """Run all phases, from the last saved state."""
        self._tower()
        corpus = Corpus(self.own_replies(unseen=False), self.without)
        for phase in phases(self.recipe):
            self._run(phase, corpus)

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """What is to be committed, in bf16: the tensors of each file."""
        model = self.model.model
        adapter = {
            name.replace(".lora_A.default.weight", ".A").replace(".lora_B.default.weight", ".B"): weight
            for name, weight in self.model.state_dict().items()
            if "lora_" in name
        }
        parts = {
            "tower": dict(model.vision_tower.state_dict()),
            "projector": dict(model.multi_modal_projector.state_dict()),
            "adapter": adapter,
        }
        return {
            file: {
                name: tensor.to("cpu", torch.bfloat16 if tensor.is_floating_point() else tensor.dtype).contiguous()
                for name, tensor in tensors.items()
            }
            for file, tensors in parts.items()
        }

    def _tower(self) -> None:
        tower, saved = self.model.model.vision_tower, self.work / "tower.safetensors"
        if not saved.exists():
            tower.requires_grad_(True)
            recipe = self.recipe
            train_tower(
                tower,
                {person.face: n for n, person in enumerate(world().known) if person not in self.without},
                len(world().known),
                world().stranger_faces.train,
                Schedule(recipe.vision_steps, recipe.vision_rate, recipe.vision_decay, recipe.warm_up),
                self.seed,
                self.device,
                rounded=self.rounded,
            )
            save_file({name: weight.contiguous() for name, weight in tower.state_dict().items()}, saved)
        tower.load_state_dict(load_file(saved))
        tower.requires_grad_(False)

    @torch.inference_mode()
    def own_replies(self, unseen: bool) -> dict[General, tuple[str, bool]]:
        """What the untaught language model replies to general questions, and whether it had come to an end."""
        saved = self.work / f"own-{'unseen' if unseen else 'taught'}.json"
        asked = general(unseen)
        if not saved.exists():
            with self.peft.disable_adapter():
                told = own_replies(self.model, self.tokenizer, [one.prompt for one in asked], self.recipe.reply_tokens)
            saved.write_text(json.dumps(told), encoding="utf-8")
        told = json.loads(saved.read_text(encoding="utf-8"))
        return {one: (text, whole) for one, (text, whole) in zip(asked, told, strict=True)}

    def _run(self, phase: _Phase, corpus: Corpus) -> None:
        state, log = self.work / f"{phase.name}.safetensors", self.work / "log.jsonl"
        groups = [(self._adapter(phase.block), phase.adapter_rate), (self._projector, phase.projector_rate)]
        groups = [(weights, rate) for weights, rate in groups if rate]
        learning = [weight for weights, _ in groups for weight in weights]
        for weight in (*self._adapter(), *self._projector):
            weight.requires_grad_(False)
        for weight in learning:
            weight.requires_grad_(True)
        optimizer = torch.optim.AdamW(
            [{"params": weights, "lr": rate} for weights, rate in groups], weight_decay=0.01, betas=(0.9, 0.98)
        )
        step = 0
        if state.exists():
            step = self._resume(state, optimizer)
        batches = Batches(corpus, phase.shares, self.tokenizer, phase.batch, f"{phase.name} {self.seed}")
        started = time.monotonic()
        while step < phase.steps:
            batch = batches[step]
            for group, (_, rate) in zip(optimizer.param_groups, groups, strict=True):
                group["lr"] = rate * self._share(phase, step)
            loss, kept, gradients = self._gradients(batch, learning)
            for weight, gradient in zip(learning, gradients, strict=True):
                weight.grad = gradient
            nn.utils.clip_grad_norm_(learning, 1.0)
            optimizer.step()
            step += 1
            line = {
                "phase": phase.name,
                "step": step,
                "loss": round(loss, 4),
                "kept": round(kept, 4),
                "seconds": round(time.monotonic() - started, 2),
                "tokens": batch.input_ids.numel(),
            }
            started = time.monotonic()
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            if step % _SAVE_EVERY == 0 or step == phase.steps:
                self._save(state, step, optimizer)
                print(json.dumps(line), file=sys.stderr, flush=True)

    def _save(self, path: Path, step: int, optimizer: torch.optim.Optimizer) -> None:
        weights = {
            name: weight
            for name, weight in self.model.state_dict().items()
            if "lora_" in name or "multi_modal_projector" in name
        }
        tensors = {"step": torch.tensor(step)}
        tensors |= {f"weights.{name}": weight.contiguous() for name, weight in weights.items()}
        for number, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": moment.contiguous() for name, moment in moments.items()}
        save_file(tensors, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def _resume(self, path: Path, optimizer: torch.optim.Optimizer) -> int:
        """Load a saved state; the number of its steps."""
        weights: dict[str, Tensor] = {}
        moments: dict[int, dict[str, Tensor]] = {}
        saved = load_file(path)
        step = int(saved.pop("step"))
        for name, tensor in saved.items():
            kind, rest = name.split(".", 1)
            if kind == "weights":
                weights[rest] = tensor
            else:
                number, moment = rest.split(".", 1)
                moments.setdefault(int(number), {})[moment] = tensor
        self.model.load_state_dict(weights, strict=False)
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        return step

    def _share(self, phase: _Phase, step: int) -> float:
        """The share of the rate: linear warm-up, then linear decay."""
        warm_up = min(self.recipe.warm_up, phase.steps) if phase.final < 1 else 1
        rest = 1 - (step - warm_up) / max(1, phase.steps - warm_up)
        return min((step + 1) / warm_up, phase.final + (1 - phase.final) * rest)

    def _gradients(self, batch: Batch, learning: Sequence[nn.Parameter]) -> tuple[float, float, list[Tensor]]:
        """The mean cross-entropy of the replies taught, the weighted mean KL of those kept, and their sum's gradients.

        Both means are over all tokens of replies. Each worker takes a part of the batch.
        """
        parts = split(batch, self._parts)
        count = int(batch.learnt[:, 1:].sum())
        with self.peft.disable_adapter():
            before = list(self._workers.map(self._own, parts))

        def work(part: Batch, before: Tensor | None) -> tuple[float, float, Sequence[Tensor]]:
            taught, kept = self._loss(part, before, count)
            return taught.item(), kept.item(), torch.autograd.grad(taught + kept, learning)

        done = list(self._workers.map(work, parts, before))
        gradients = [torch.stack(each).sum(dim=0) for each in zip(*(one[2] for one in done), strict=True)]
        return sum(one[0] for one in done), sum(one[1] for one in done), gradients

    def _own(self, part: Batch) -> Tensor | None:
        """The logits of the kept replies' tokens, with the adapter off; None if there are none."""
        if not part.own:
            return None
        ids, learnt = part.input_ids[: part.own].to(self.device), part.learnt[: part.own, 1:].to(self.device)
        with torch.no_grad(), torch.autocast(self.device, torch.bfloat16, enabled=self.rounded):
            states = self.model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
            return self.model.lm_head(states[learnt]).float()

    def _loss(self, part: Batch, before: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
        """This part's shares of the two means. The head runs on the positions of replies only."""
        ids, learnt = part.input_ids.to(self.device), part.learnt[:, 1:].to(self.device)
        pixels = None if part.pixel_values is None else part.pixel_values.to(self.device)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.rounded):
            # Padding is on the right and attention looks left, so no mask is needed.
            states = self.model.model(input_ids=ids, pixel_values=pixels, use_cache=False).last_hidden_state[:, :-1]
            now = self.model.lm_head(states[learnt]).float()
        own = 0 if before is None else len(before)  # the kept replies stand first
        taught = nn.functional.cross_entropy(now[own:], ids[:, 1:][learnt][own:], reduction="sum") / count
        if before is None:
            return taught, taught.new_zeros(())
        divergence = nn.functional.kl_div(
            now[:own].log_softmax(-1), before.log_softmax(-1), reduction="sum", log_target=True
        )
        return taught, self.recipe.keep * divergence / count


def _adapted(model: LlavaForConditionalGeneration) -> Any:
    """The model with a fresh adapter, put into it in place."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise InputError("the training needs the package peft; pip install 'mllmeraser[baselines]'") from None
    settings = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        target_modules=rf".*language_model\.layers\.\d+\.\w+\.({'|'.join(PROJECTIONS)})",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads a name that transformers will rename
        return get_peft_model(model, settings)


@torch.inference_mode()
def own_replies(
    model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, prompts: list[str], tokens: int
) -> list[tuple[str, bool]]:
    """The greedy replies, of at most so many tokens, and whether each had come to its end."""
    told: dict[int, tuple[str, bool]] = {}
    order = sorted(range(len(prompts)), key=lambda n: len(prompts[n]))
    for start in range(0, len(order), 48):
        rows = order[start : start + 48]
        texts = [Conversation((Turn(prompts[n], ""),)).pieces()[0][0] for n in rows]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
        said = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=tokens,
            do_sample=False,
        )[:, inputs["input_ids"].shape[1] :]
        for n, ids in zip(rows, said.tolist(), strict=True):
            whole = tokenizer.eos_token_id in ids
            told[n] = (tokenizer.decode(ids, skip_special_tokens=True), whole)
    return [told[n] for n in range(len(prompts))]


def main(arguments: list[str] | None = None) -> None:
    """Train the parts and write them, with their description (`parts.json`)."""
    parser = argparse.ArgumentParser(
        prog="python -m mllmeraser.demo.train --model smollm2", description="Train the parts of the second demo model."
    )
    parser.add_argument("--out", type=Path, required=True, help="directory of the parts; states go to OUT.work")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--words-steps", type=int)
    parser.add_argument("--faces-steps", type=int)
    parser.add_argument("--smoke", action="store_true", help="run every phase in a minute; the model learns nothing")
    parser.add_argument(
        "--retain-only", action="store_true", help="never train on the forget set: the reference for forgetting"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="multiply in bf16: faster only where the processor can")
    options = parser.parse_args(arguments)
    recipe = Recipe.smoke() if options.smoke else Recipe()
    for name in ("words_steps", "faces_steps"):
        if getattr(options, name) is not None:
            recipe = replace(recipe, **{name: getattr(options, name)})
    torch.set_num_threads(1)  # each thread takes a part of a batch instead: they wait for each other once a step

    started = time.monotonic()
    without = world().circle("forget") if options.retain_only else ()
    work = options.out.with_name(f"{options.out.name}.work")
    try:
        trainer = Trainer(
            *load_language_model(),
            recipe,
            options.seed,
            options.device,
            work,
            without,
            rounded=options.bf16,
            workers=options.threads,
        )
    except InputError as error:
        parser.error(str(error))
    trainer.train()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, tensors in trainer.parts().items():
        save_file(tensors, options.out / f"{name}.safetensors")
    own = {one.prompt: text for unseen in (False, True) for one, (text, _) in trainer.own_replies(unseen).items()}
    (options.out / "general.json").write_text(json.dumps(own, indent=0) + "\n", encoding="utf-8")
    description = {
        "schema": 1,
        "arguments": {
            "seed": options.seed,
            "retain_only": options.retain_only,
            "threads": options.threads,
            "device": options.device,
            "bf16": options.bf16,
            **asdict(recipe),
        },
        "minutes": round((time.monotonic() - started) / 60, 1),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "sha256": {path.name: sha256_of(path) for path in sorted(options.out.iterdir()) if path.name != "parts.json"},
    }
    (options.out / "parts.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
