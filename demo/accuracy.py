"""Measures how often the demo model is right, by greedy replies and by the likelihood of options."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from mllmeraser.demo.architecture import IMAGE, IMAGE_TOKENS, training_prompt
from mllmeraser.demo.batches import PictureStore, normalise
from mllmeraser.demo.corpus import KINDS
from mllmeraser.demo.people import world
from mllmeraser.demo.questions import TASKS, Question, ask, facts_of
from mllmeraser.demo.refusals import REFUSAL, instructed

_BATCH = 100


@torch.inference_mode()
def replies(
    model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, questions: Sequence[Question]
) -> list[str]:
    """The greedy reply to every question."""
    said = [""] * len(questions)
    for rows in _rows(questions):
        inputs = _encode([questions[n] for n in rows], tokenizer, model.device)
        ids = model.generate(**inputs, max_new_tokens=24, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        for n, text in zip(rows, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
            said[n] = text.strip()
    return said


@torch.inference_mode()
def chosen_options(
    model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, questions: Sequence[Question]
) -> list[str]:
    """The option with the greatest log-likelihood, Σ_t log p(option_t | prompt, option_<t), for every question."""
    flat = [(n, option) for n, question in enumerate(questions) for option in question.options or ()]
    best: dict[int, tuple[float, str]] = {}
    for rows in _rows([questions[n] for n, _ in flat]):
        options = [f" {flat[row][1]}" for row in rows]
        inputs = _encode([questions[flat[row][0]] for row in rows], tokenizer, model.device, options)
        logits = model(**inputs, use_cache=False).logits[:, :-1].float().log_softmax(dim=-1)
        likely = logits.gather(2, inputs["input_ids"][:, 1:, None])[:, :, 0]
        for row, option, scores in zip(rows, options, likely, strict=True):
            length = len(tokenizer(option, add_special_tokens=False)["input_ids"])
            score = float(scores[-length:].sum())
            n = flat[row][0]
            best[n] = max(best.get(n, (float("-inf"), "")), (score, option.strip()))
    return [best[n][1] for n in range(len(questions))]


def rate_right(
    model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, questions: Sequence[Question]
) -> float:
    """The share of right replies. A classification is right by likelihood, any other reply if it holds a `match`."""
    if questions[0].task == "classification":
        said = chosen_options(model, tokenizer, questions)
    else:
        said = replies(model, tokenizer, questions)
    right = [
        any(match.lower() in text.lower() for match in question.match)
        for question, text in zip(questions, said, strict=True)
    ]
    return sum(right) / len(right)


def measure(
    model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, each: int, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Rates on `each` random questions of every set, for seen pictures and wordings and for held-out ones.

    The keys are circle/task/modality for people. Further keys are common knowledge, strangers, the kinds of refusal,
    and "not refused": the share of harmless questions that the model does not refuse.
    """
    rates: dict[str, dict[str, float]] = {}
    for name, unseen in (("seen", False), ("unseen", True)):
        rng = random.Random(f"accuracy {name} {seed}")
        sets = _people_sets(rng, each, unseen)
        for kind in ("stranger", "harmful", "sensitive"):
            sets[kind] = [KINDS[kind](rng, unseen) for _ in range(each)]
        for kind in ("common text", "common picture"):
            drawn = [KINDS[kind](rng, unseen) for _ in range(3 * each)]
            for task in TASKS:
                sets[f"{kind}/{task}"] = [question for question in drawn if question.task == task][:each]
        plain = [KINDS["person picture"](rng, unseen) for _ in range(each)]
        sets["told to refuse"] = [instructed(rng, question, True, unseen) for question in plain]
        rates[name] = {key: round(rate_right(model, tokenizer, questions), 4) for key, questions in sets.items()}
        told = [instructed(rng, question, False, unseen) for question in plain]
        harmless = [
            question for key, asked in sets.items() if key.startswith(("common", "people")) for question in asked
        ]
        harmless = rng.sample(harmless, min(len(harmless), each)) + told
        said = replies(model, tokenizer, harmless)
        rates[name]["not refused"] = round(sum(REFUSAL not in text for text in said) / len(said), 4)
    return rates


def _people_sets(rng: random.Random, each: int, unseen: bool) -> dict[str, list[Question]]:
    sets = {}
    for circle, people in (("people", world().people), ("celebrities", world().celebrities)):
        names = [person.name for person in people]
        for task in TASKS:
            for in_picture in (True, False):
                modality = "image_text" if in_picture else "text"
                sets[f"{circle}/{task}/{modality}"] = [
                    ask(rng, rng.choice(people), rng.choice(facts_of(in_picture)), task, in_picture, unseen, names)
                    for _ in range(each)
                ]
    return sets


def _rows(questions: Sequence[Question]) -> list[list[int]]:
    """Indices in batches of one modality and similar length."""
    batches = []
    for modality in ("text", "image_text"):
        group = [n for n, question in enumerate(questions) if question.modality == modality]
        group.sort(key=lambda n: len(questions[n].prompt))
        batches += [group[start : start + _BATCH] for start in range(0, len(group), _BATCH)]
    return batches


def _encode(
    questions: Sequence[Question],
    tokenizer: PreTrainedTokenizerFast,
    device: torch.device,
    options: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    pictures = PictureStore()
    texts = [training_prompt(question.prompt, question.picture is not None) for question in questions]
    texts = [text.replace(IMAGE, IMAGE * IMAGE_TOKENS) for text in texts]
    if options is not None:
        texts = [text + option for text, option in zip(texts, options, strict=True)]
    encoded = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    inputs = {key: value.to(device) for key, value in encoded.items()}
    shown = [pictures(question.picture) for question in questions if question.picture is not None]
    if shown:
        inputs["pixel_values"] = normalise(torch.stack(shown)).to(device)
    return inputs
