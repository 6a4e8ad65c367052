"""What is done to recall pictures: within ε, through the real processor, and by PGD so that the base grows surer."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import qwen_talker, talker
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor

from mllmeraser.demo.data import build_sets
from mllmeraser.demo.run import CHECKPOINT
from mllmeraser.errors import InputError
from mllmeraser.inference.cache import PassCache
from mllmeraser.inference.encoding import encode
from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.inference.pixels import patched, pixel_values, seen, unpatched
from mllmeraser.inference.replies import greedy_reply_ids
from mllmeraser.inference.source import Source
from mllmeraser.records.prompts import Prompt
from mllmeraser.steering.forms import Perturbation
from mllmeraser.steering.pairs import Pairs
from mllmeraser.steering.perturbation import Spoken, perturbed

FAMILIES = ("llava", "qwen2_5_vl")
PGD = Perturbation.parse("pgd:8/255,2/255,10")
NOISE = Perturbation.parse("noise:8/255")
SIZES = ((16, 16), (40, 23), (19, 90), (7, 5))  # width, height: as the model takes it, larger, long, smaller


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    make_base = {"llava": talker.make_base, "qwen2_5_vl": qwen_talker.make_base}[request.param]
    return load(make_base(tmp_path_factory.mktemp(request.param)))


def pairs_of(prompts: list[Prompt], replies: list[Tensor]) -> Pairs:
    """Recall prompts and what is answered; the erasure side is never looked at here."""
    return Pairs("own", prompts, replies, [], [], 1.0)


@pytest.fixture
def pairs(checkpoint: Checkpoint) -> Pairs:
    """Questions about pictures of four sizes, one of them only in words in the middle."""
    texts = ["Who is this?", "Where does this person live?", "What is the job of this person?", "Who?"]
    prompts = [
        Prompt(text, qwen_talker.picture(i, size)) for i, (text, size) in enumerate(zip(texts, SIZES, strict=True))
    ]
    prompts.insert(2, Prompt("Who is person one?", None))
    replies = [torch.tensor(ids) for ids in ([5, 6, 7], [8], [9, 10], [11, 12, 13, 14], [15, 16])]
    return pairs_of(prompts, replies)


def shown(checkpoint: Checkpoint, prompt: Prompt) -> Tensor:
    """What the model gets to see of a prompt's picture, by the real processor."""
    return encode(checkpoint, [prompt], "right")["pixel_values"]


def certainty(checkpoint: Checkpoint, prompts: list[Prompt], replies: list[Tensor]) -> float:
    """The cross-entropy of the replies, each alone and by the real processor; lower is surer."""
    total = 0.0
    for prompt, reply in zip(prompts, replies, strict=True):
        inputs = encode(checkpoint, [prompt], "right")
        length = inputs["input_ids"].shape[1]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], reply[None]], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if "mm_token_type_ids" in inputs:
            zeros = inputs["mm_token_type_ids"].new_zeros(1, len(reply))
            inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], zeros], dim=1)
        with torch.no_grad():
            logits = checkpoint.model(**inputs).logits[0, length - 1 : -1].float()
        total += float(torch.nn.functional.cross_entropy(logits, reply, reduction="sum"))
    return total


@pytest.mark.parametrize("how", [PGD, NOISE], ids=str)
def test_every_picture_moves_and_none_by_more_than_epsilon(
    checkpoint: Checkpoint, pairs: Pairs, how: Perturbation
) -> None:
    found = perturbed(checkpoint, pairs, how, seed=1)
    for before, after in zip(pairs.recall, found.recall, strict=True):
        assert after.text == before.text
        if before.image is None:
            assert after == before
            continue
        moved = seen(checkpoint, after) - seen(checkpoint, before)
        assert moved.abs().max() == 8
        assert torch.equal(moved, moved.round())
    assert replace(found, recall=pairs.recall) == pairs  # nothing else is touched


def test_an_attack_makes_the_answer_surer_than_noise_of_the_same_norm(checkpoint: Checkpoint, pairs: Pairs) -> None:
    clean = certainty(checkpoint, pairs.recall, pairs.recall_replies)
    attacked = certainty(checkpoint, perturbed(checkpoint, pairs, PGD, 0).recall, pairs.recall_replies)
    noisy = [
        certainty(checkpoint, perturbed(checkpoint, pairs, NOISE, seed).recall, pairs.recall_replies)
        for seed in range(3)
    ]
    assert attacked < clean - 0.01
    assert attacked < min(noisy) - 0.01


def test_the_loss_of_an_attack_is_the_cross_entropy_of_the_answers(checkpoint: Checkpoint, pairs: Pairs) -> None:
    asked = [(p, r) for p, r in zip(pairs.recall, pairs.recall_replies, strict=True) if p.image]
    prompts, replies = [p for p, _ in asked], [r for _, r in asked]
    with torch.no_grad():
        loss = Spoken.of(checkpoint, prompts, replies).loss([seen(checkpoint, prompt) for prompt in prompts])
    assert float(loss) == pytest.approx(certainty(checkpoint, prompts, replies), rel=1e-4)


def test_an_attacked_picture_survives_being_saved_as_png(checkpoint: Checkpoint, pairs: Pairs, tmp_path: Path) -> None:
    """The real processor makes of the saved picture what the attack showed the model, bit for bit."""
    found = perturbed(checkpoint, pairs, PGD, 0)
    for i, prompt in enumerate(found.recall):
        if prompt.image is None:
            continue
        assert isinstance(prompt.image, Image.Image)
        prompt.image.save(tmp_path / f"{i}.png")
        from_file = shown(checkpoint, Prompt(prompt.text, tmp_path / f"{i}.png"))
        assert torch.equal(from_file, shown(checkpoint, prompt))
        attacked = torch.from_numpy(np.array(prompt.image)).permute(2, 0, 1).float()
        assert torch.equal(from_file, pixel_values(checkpoint, [attacked]))


def test_what_the_model_sees_of_a_clean_picture_is_repeated_bit_for_bit(checkpoint: Checkpoint, pairs: Pairs) -> None:
    for prompt in pairs.recall:
        if prompt.image is not None:
            assert torch.equal(pixel_values(checkpoint, [seen(checkpoint, prompt)]), shown(checkpoint, prompt))


@pytest.mark.parametrize(
    "how", [Perturbation("noise", 0.003), Perturbation("pgd", 0.003, 0.003, 2), Perturbation("pgd", 0.03, 1e-4, 1)]
)
def test_less_than_a_grey_level_changes_nothing(checkpoint: Checkpoint, pairs: Pairs, how: Perturbation) -> None:
    for before, after in zip(pairs.recall, perturbed(checkpoint, pairs, how, 0).recall, strict=True):
        if before.image is not None:
            assert torch.equal(shown(checkpoint, after), shown(checkpoint, before))


def test_epsilon_is_rounded_down_to_whole_grey_levels(checkpoint: Checkpoint, pairs: Pairs) -> None:
    found = perturbed(checkpoint, pairs, Perturbation("noise", 2.9 / 255), 0)
    assert (seen(checkpoint, found.recall[0]) - seen(checkpoint, pairs.recall[0])).abs().max() == 2


def test_black_and_white_stay_within_what_a_picture_can_hold(checkpoint: Checkpoint) -> None:
    for level in (0, 255):
        prompt = Prompt("Who is this?", Image.new("RGB", (16, 16), (level,) * 3))
        for how in (NOISE, PGD):
            found = perturbed(checkpoint, pairs_of([prompt], [torch.tensor([5, 6])]), how, 0)
            moved = seen(checkpoint, found.recall[0])
            assert 0 < float((moved - level).abs().max()) <= 8


@pytest.mark.parametrize("how", [PGD, NOISE], ids=str)
def test_a_seed_gives_the_same_pictures(checkpoint: Checkpoint, pairs: Pairs, how: Perturbation) -> None:
    first, again, other = (perturbed(checkpoint, pairs, how, seed).recall for seed in (3, 3, 4))
    assert first[0].image == again[0].image
    assert [prompt.image for prompt in first] == [prompt.image for prompt in again]
    assert (first[0].image == other[0].image) is (how.kind == "pgd")  # nothing in the attack is random


def test_each_picture_is_attacked_as_if_alone(checkpoint: Checkpoint, pairs: Pairs) -> None:
    asked = [(p, r) for p, r in zip(pairs.recall, pairs.recall_replies, strict=True) if p.image]
    pixels = [seen(checkpoint, prompt).requires_grad_(True) for prompt, _ in asked]
    together = torch.autograd.grad(Spoken.of(checkpoint, *map(list, zip(*asked, strict=True))).loss(pixels), pixels)
    for (prompt, reply), picture, gradient in zip(asked, pixels, together, strict=True):
        (alone,) = torch.autograd.grad(Spoken.of(checkpoint, [prompt], [reply]).loss([picture]), [picture])
        assert alone.abs().max() > 0
        torch.testing.assert_close(gradient, alone, rtol=1e-3, atol=1e-4 * float(alone.abs().max()))


def test_text_alone_has_nothing_to_perturb(checkpoint: Checkpoint) -> None:
    words = pairs_of([Prompt("Who?", None)], [torch.tensor([5])])
    assert perturbed(checkpoint, words, Perturbation(), 0) is words
    with pytest.raises(InputError, match=r"^--perturbation noise:8/255: no recall prompt has a picture"):
        perturbed(checkpoint, words, NOISE, 0)


@pytest.mark.parametrize("failing", [False, True])
def test_the_model_is_left_as_it_was(
    checkpoint: Checkpoint, pairs: Pairs, failing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = checkpoint.model
    frozen = next(iter(model.parameters()))
    frozen.requires_grad_(False)  # by somebody else: it stays so
    before = {name: weight.requires_grad for name, weight in model.named_parameters()}
    values = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    assert set(before.values()) == {True, False}
    if failing:
        forward = type(model).forward

        def broken(self: torch.nn.Module, *args: object, **kwargs: object) -> object:
            assert not any(weight.requires_grad for weight in self.parameters())
            forward(self, *args, **kwargs)
            raise RuntimeError("in the middle")

        monkeypatch.setattr(type(model), "forward", broken)
        with pytest.raises(RuntimeError, match="in the middle"):
            perturbed(checkpoint, pairs, PGD, 0)
    else:
        perturbed(checkpoint, pairs, PGD, 0)
    assert {name: weight.requires_grad for name, weight in model.named_parameters()} == before
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(weight, values[name]) for name, weight in model.named_parameters())
    frozen.requires_grad_(True)


def test_a_finished_attack_is_not_repeated(checkpoint: Checkpoint, pairs: Pairs, tmp_path: Path) -> None:
    kept = replace(checkpoint, passes=PassCache.of(tmp_path, checkpoint.path, "float32"))
    first = perturbed(kept, pairs, PGD, 0).recall
    calls = []
    handle = checkpoint.model.register_forward_hook(lambda *_: calls.append(1))
    try:
        assert [p.image for p in perturbed(kept, pairs, PGD, 0).recall] == [p.image for p in first]
        assert not calls
        perturbed(kept, pairs, PGD._replace(iterations=2), 0)
        assert len(calls) == 2
    finally:
        handle.remove()


def test_a_processor_that_crops_again_is_refused(tmp_path: Path) -> None:
    """Resized to 24 and cropped to 16, a picture of 16 pixels would be resized and cropped once more."""
    checkpoint = load(talker.make_base(tmp_path / "base"))
    checkpoint.processor.image_processor = CLIPImageProcessor(
        size={"shortest_edge": 24}, crop_size={"height": 16, "width": 16}
    )
    pairs = pairs_of([Prompt("Who is this?", qwen_talker.picture(0, (40, 30)))], [torch.tensor([5])])
    for how in (NOISE, PGD):
        with pytest.raises(InputError, match=r"^--perturbation: the processor of llava does not show its model one"):
            perturbed(checkpoint, pairs, how, 0)


@pytest.mark.parametrize("size", [*qwen_talker.SIZES, (8, 8), (300, 20), (17, 61)])
@pytest.mark.parametrize(("patch", "merge", "frames"), [(4, 2, 2), (2, 3, 1), (14, 2, 2)])
def test_patches_lie_as_the_processor_of_qwen_lays_them(
    size: tuple[int, int], patch: int, merge: int, frames: int
) -> None:
    area = (patch * merge) ** 2
    real = qwen_talker.image_processor(patch, merge, frames, smallest=area, largest=64 * area)
    processor = qwen_talker.processor()
    processor.image_processor = real
    checkpoint = Checkpoint(torch.nn.Module(), processor, Source(Path("none")), "qwen2_5_vl", steered=False)
    made = real(images=[qwen_talker.picture(3, size)], return_tensors="pt")
    values, grid = made["pixel_values"], made["image_grid_thw"]
    pixels = unpatched(checkpoint, values, grid)
    assert pixels.shape == (3, int(grid[0, 1]) * patch, int(grid[0, 2]) * patch)
    assert torch.equal(patched(checkpoint, pixels), values)
    assert torch.equal(pixel_values(checkpoint, [seen(checkpoint, Prompt("", qwen_talker.picture(3, size)))]), values)


def test_pictures_of_several_sizes_are_laid_one_behind_another(tmp_path: Path) -> None:
    checkpoint = load(qwen_talker.make_base(tmp_path / "base"))
    pictures = [qwen_talker.picture(i) for i in range(len(qwen_talker.SIZES))]
    together = checkpoint.processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
    pixels = [seen(checkpoint, Prompt("", image)) for image in pictures]
    assert torch.equal(pixel_values(checkpoint, pixels), together)


DEMO = 12  # people of the demo world, whom its checkpoint knows


@pytest.mark.slow
def test_an_attack_on_the_demo_model_makes_it_surer_than_noise() -> None:
    """Through a trained model of bfloat16 weights: greedy answers to pictures larger than it takes, then surer."""
    checkpoint = load(CHECKPOINT)
    questions = [q for q in build_sets(random.Random("pictures"))["forget"] if q.picture is not None][:DEMO]
    prompts = [Prompt(q.prompt, q.picture.draw().resize((150, 100))) for q in questions if q.picture is not None]
    pairs = pairs_of(prompts, greedy_reply_ids(checkpoint, prompts, max_new_tokens=12))
    clean, attacked, noisy = (
        certainty(checkpoint, perturbed(checkpoint, pairs, how, 0).recall, pairs.recall_replies)
        for how in (Perturbation(), PGD, NOISE)
    )
    assert attacked < 0.5 * clean
    assert attacked < 0.5 * noisy
