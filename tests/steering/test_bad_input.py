"""Bad records, pictures and models: one line that names what is wrong, or a stated way of going on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from builders import qwen_talker, talker
from PIL import Image

from mllmeraser.errors import InputError
from mllmeraser.inference.activations import last_prompt_states
from mllmeraser.inference.encoding import encode, read_image
from mllmeraser.inference.loading import Checkpoint, load
from mllmeraser.inference.replies import greedy_reply_ids
from mllmeraser.inference.states import StateFile
from mllmeraser.records.pictures import LONGEST_SIDE
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record, refuse_overlap
from mllmeraser.steering.checks import check_records, median_distance, refuse_constant
from mllmeraser.steering.features import FEWEST, place_centres
from mllmeraser.steering.folds import folds

MAKERS = {"llava": talker.make_base, "qwen2_5_vl": qwen_talker.make_base}
MARK = {"llava": "<image>", "qwen2_5_vl": "<|image_pad|>"}
WORDS = Prompt("Who is person one?", None)


@pytest.fixture(scope="module", params=MAKERS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load(MAKERS[request.param](tmp_path_factory.mktemp(request.param)))


def message(call: object, *arguments: object) -> str:
    """What the InputError says; it is one line."""
    assert callable(call)
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def asked(checkpoint: Checkpoint, *prompts: Prompt) -> torch.Tensor:
    """The states at the last token of some prompts."""
    return last_prompt_states(checkpoint, prompts, [1])[1]


# ------------------------------------------------------------------------------------------------------------ pictures


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (8000, 1000), (1000, 8000)])
def test_pictures_of_one_pixel_or_thousands_are_resized_as_any(checkpoint: Checkpoint, size: tuple[int, int]) -> None:
    """The processor brings them to what the model takes; the states are finite and depend on the picture."""
    white, black = (Prompt("Who is this?", Image.new("RGB", size, (level,) * 3)) for level in (255, 0))
    states = asked(checkpoint, white, black, Prompt("Who is this?", qwen_talker.picture(1)))
    assert torch.isfinite(states).all()
    assert not torch.allclose(states[0], states[1])


@pytest.mark.parametrize("size", [(1, LONGEST_SIDE + 1), (8000, 1)])
def test_a_picture_that_is_a_line_is_refused(checkpoint: Checkpoint, size: tuple[int, int], tmp_path: Path) -> None:
    """Resized by its shorter side, 1 × 8,000 pixels would become gigabytes."""
    Image.new("RGB", size).save(tmp_path / "line.png")
    width, height = (f"{side:,}" for side in size)
    expected = f"a picture of {width} × {height} pixels; crop it, so that no side is more than 200 times the other"
    assert message(asked, checkpoint, Prompt("Who?", tmp_path / "line.png")) == f"{tmp_path / 'line.png'}: {expected}"
    in_memory = Prompt("Who?", Image.new("RGB", size))
    assert message(asked, checkpoint, in_memory) == f"the prompt 'Who?': {expected}"


def test_a_picture_just_short_of_a_line_is_taken(checkpoint: Checkpoint) -> None:
    assert torch.isfinite(asked(checkpoint, Prompt("Who?", Image.new("RGB", (LONGEST_SIDE, 1))))).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_every_kind_of_pixel_is_taken(checkpoint: Checkpoint, mode: str) -> None:
    assert torch.isfinite(asked(checkpoint, Prompt("Who?", Image.new(mode, (9, 7))))).all()


def test_a_photo_of_a_phone_is_seen_as_transformers_shows_it(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Its pixels lie on their side; its EXIF says so. ``apply_chat_template`` with a path is what clients do."""
    path, exif = tmp_path / "photo.png", Image.Exif()
    exif[0x112] = 6
    qwen_talker.picture(3).rotate(90, expand=True).save(path, exif=exif)
    parts = [{"type": "image", "path": str(path)}, {"type": "text", "text": "Who is this?"}]
    message = [{"role": "user", "content": parts}]
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    theirs = checkpoint.processor.apply_chat_template(message, **options)
    ours = encode(checkpoint, [Prompt("Who is this?", path)], "left")
    upright = encode(checkpoint, [Prompt("Who is this?", qwen_talker.picture(3))], "left")
    for key in ("input_ids", "pixel_values"):
        assert torch.equal(ours[key], theirs[key]), key
        assert torch.equal(ours[key], upright[key]), key


def corrupt(path: Path, how: str) -> Path:
    """A file that is no picture any more, in one of many ways."""
    talker.picture(3).resize((60, 60)).save(path, "PNG")
    data = bytearray(path.read_bytes())
    if how == "truncated":
        data = data[: len(data) // 2]
    elif how == "header":
        data[18:20] = b"\xff\xff"
    elif how == "checksum":
        data[40] ^= 0xFF
    elif how == "text":
        data = bytearray(b"this is no picture")
    elif how == "empty":
        data = bytearray()
    elif how == "bomb":
        data = bytearray(b"P6 60000 60000 255 ")
    elif how == "broken number":  # Pillow raises a ValueError here
        data = bytearray(b"P6 6x0 6 255 ")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("how", ["truncated", "header", "checksum", "text", "empty", "bomb", "broken number", "folder"])
def test_a_corrupt_picture_names_its_file(checkpoint: Checkpoint, how: str, tmp_path: Path) -> None:
    path = tmp_path / "face.png"
    if how == "folder":
        path.mkdir()
    else:
        corrupt(path, how)
    good = Prompt("Who is this?", talker.picture(1))
    assert message(asked, checkpoint, good, Prompt("Who?", path)).startswith(f"{path}: not a readable picture (")


def test_whatever_pillow_raises_becomes_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    talker.picture(1).save(tmp_path / "a.png")
    for raised in (SyntaxError("broken PNG file\nmore"), RuntimeError(), NotImplementedError("DDS"), ValueError("x")):
        monkeypatch.setattr(Image.Image, "convert", _raising(raised))
        said = str(raised).splitlines()[0] if str(raised) else type(raised).__name__
        expected = f"{tmp_path / 'a.png'}: not a readable picture ({said})"
        assert message(read_image, Prompt("Who?", tmp_path / "a.png")) == expected


def _raising(error: Exception) -> object:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


# --------------------------------------------------------------------------------------------------- templates and text


def test_a_tokenizer_without_a_chat_template_is_one_line(checkpoint: Checkpoint, tmp_path: Path) -> None:
    shutil.copytree(checkpoint.path, tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").unlink()
    assert message(load, tmp_path / "base").startswith(
        f"{tmp_path / 'base'}: the processor has no usable chat template ("
    )


def test_a_template_that_raises_nothing_in_words_is_one_line(checkpoint: Checkpoint, tmp_path: Path) -> None:
    shutil.copytree(checkpoint.path, tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").write_text("{{ raise_exception('') }}")
    expected = f"{tmp_path / 'base'}: the processor has no usable chat template (TemplateError); give one that takes"
    assert message(load, tmp_path / "base").startswith(expected)


@pytest.mark.parametrize("image", [None, talker.picture(1)], ids=["words", "picture"])
def test_a_text_that_holds_the_mark_of_a_picture_names_the_prompt(
    checkpoint: Checkpoint, image: Image.Image | None
) -> None:
    """The processor would look for one more picture; it says so without saying where."""
    good, bad = Prompt("Who is this?", image), Prompt(f"Who is {MARK[checkpoint.model_type]} this?", image)
    for call, arguments in ((asked, (checkpoint, good, bad, good)), (encode, (checkpoint, [good, bad, good], "left"))):
        said = message(call, *arguments)
        assert said.startswith(f"the prompt {bad.text!r}: the processor cannot encode it (")


@pytest.mark.parametrize("image", [None, talker.picture(1)], ids=["words", "picture"])
def test_a_prompt_longer_than_the_context_is_named(checkpoint: Checkpoint, image: Image.Image | None) -> None:
    context = checkpoint.model.config.get_text_config().max_position_embeddings
    around = encode(checkpoint, [Prompt("Who", image)], "left")["input_ids"].shape[1] - 1
    fits = Prompt(" ".join(["Who"] * (context - around)), image)
    longer = Prompt(f"{fits.text} Who", image)
    assert encode(checkpoint, [fits], "left")["input_ids"].shape[1] == context
    expected = f"{longer.named}: {context + 1:,} tokens, but this model's context holds {context:,}; shorten it"
    assert message(asked, checkpoint, Prompt("Who?", image), longer) == expected
    assert message(greedy_reply_ids, checkpoint, [Prompt("Who?", image), longer]) == expected
    assert len(longer.named) < 90  # its start only


def test_the_name_of_a_prompt_is_its_start_and_its_picture(tmp_path: Path) -> None:
    assert Prompt("Who\nis  this?", tmp_path / "a.png").named == f"the prompt 'Who is this?' with {tmp_path / 'a.png'}"
    assert Prompt("a" * 61, None).named == f"the prompt '{'a' * 59}…'"


# ------------------------------------------------------------------------------------------------------ sets of records


@pytest.fixture
def people(tmp_path: Path) -> tuple[list[Record], list[Record]]:
    """Records of three people to forget and of three to keep."""
    forget, retain = (tmp_path / f"{name}.jsonl" for name in ("forget", "retain"))
    return read_records(talker.write_people(forget, range(3))), read_records(talker.write_people(retain, range(3, 6)))


def test_ordinary_records_pass(people: tuple[list[Record], list[Record]]) -> None:
    check_records(*people)


def test_an_empty_set_is_named(people: tuple[list[Record], list[Record]]) -> None:
    assert message(check_records, [], people[1]) == "the forget set is empty; give at least one record"
    assert message(check_records, people[0], []) == "the retain set is empty; give at least one record"


def test_a_subject_in_both_sets_is_named(people: tuple[list[Record], list[Record]]) -> None:
    forget, retain = people
    said = message(refuse_overlap, forget, [*retain, *forget])
    assert said.startswith("3 subject(s) stand in both the forget and the retain set, the first is 'subject-0'")


def test_a_prompt_in_both_sets_is_named_though_its_subjects_differ(people: tuple[list[Record], list[Record]]) -> None:
    forget, retain = people
    again = [record.model_copy(update={"subject": "somebody else"}) for record in forget[:2]]
    refuse_overlap(forget, [*retain, *again])
    said = message(check_records, forget, [*retain, *again])
    assert said.startswith(
        "2 prompt(s) stand in both the forget and the retain set, the first is the prompt 'What does"
    )
    assert str(forget[0].image) in said


def test_the_same_question_about_another_picture_is_another_prompt(people: tuple[list[Record], list[Record]]) -> None:
    forget, retain = people
    assert forget[0].user_turn.text == retain[0].user_turn.text
    check_records(forget, retain)


def test_a_retain_set_of_one_prompt_is_refused(people: tuple[list[Record], list[Record]]) -> None:
    forget, retain = people
    same = [retain[2].model_copy(update={"subject": f"s{i}"}) for i in range(7)]
    expected = "all 7 retain records ask the same, the prompt 'What does person four do?': give records"
    assert message(check_records, forget, same).startswith(expected)


@pytest.mark.parametrize("in_file", [False, True])
def test_retain_states_that_are_all_the_same_are_refused(in_file: bool, tmp_path: Path) -> None:
    """As of prompts that differ where the model does not look: copies of a picture under other names."""
    same = torch.randn(8, generator=torch.Generator().manual_seed(0)).expand(5000, 8) + 1e-7
    other = same.clone()
    other[4321] += 0.1
    states = {"same": same, "other": other}
    if in_file:
        files = {name: StateFile(tmp_path / name, 5000, 8) for name in states}
        for name, file in files.items():
            file.write(range(5000), states[name])
        states = files  # type: ignore[assignment]
    expected = "layer 3: all 5000 retain states are the same, so a gate would spare nothing else"
    assert message(refuse_constant, 3, states["same"]).startswith(expected)
    refuse_constant(3, states["other"])


def test_repeated_samples_do_not_bring_the_median_distance_to_zero() -> None:
    states = torch.nn.functional.normalize(torch.eye(4, dtype=torch.float64)[[0] * 20 + [1, 2, 3]], dim=-1)
    squared = torch.pdist(states).pow(2)
    assert squared.median() == 0
    assert median_distance(squared) == pytest.approx(2.0)
    said = message(median_distance, torch.pdist(states[:20] + 1e-8).pow(2))
    assert said == "all forget and retain states are the same, so no gate can tell them apart"


def test_fewer_samples_than_landmarks_give_fewer_landmarks() -> None:
    """A landmark stands for at least five records, however many are asked for; of very few records one is made."""
    generator = torch.Generator().manual_seed(0)
    for n_forget, n_retain in ((3, 4), (5, 12), (40, 60)):
        forget, retain = torch.randn(n_forget, 8, generator=generator), torch.randn(n_retain, 8, generator=generator)
        placed = place_centres(forget, retain, 512, seed=0)
        assert 2 <= len(placed.centres) <= max(2, (n_forget + n_retain) // FEWEST)
        assert torch.isfinite(placed.centres).all()


def test_one_subject_is_held_out_by_its_pictures_and_questions_or_refused(
    people: tuple[list[Record], list[Record]],
) -> None:
    forget, retain = people
    one = [record for record in forget if record.subject == "subject-0"]
    for records in (one, [record for record in one if record.image]):  # with words, and of one picture only
        found = folds(records, retain, 0.5, seed=0)
        assert torch.stack([fold.forget for fold in found]).sum(dim=0).tolist() == [1] * len(records)
        assert all(0 < int(fold.forget.sum()) < len(records) for fold in found)
    for sets, what in (((forget, retain[:4]), "the retain set has one subject"), ((one[:1], retain), "the forget set")):
        said = message(folds, *sets, 0.5, 0)
        assert said.startswith(what)
        assert said.endswith("nothing can be held out; give more, or --calibration-share 0")


# --------------------------------------------------------------------------------------------------------------- states


def test_a_state_that_is_not_finite_names_the_prompt(tmp_path: Path) -> None:
    """Half precision overflows on some prompts of some models; here on one word."""
    checkpoint = load(talker.make_base(tmp_path / "base"))
    token = checkpoint.processor.tokenizer.convert_tokens_to_ids("Graz")
    with torch.no_grad():
        checkpoint.model.get_input_embeddings().weight[token] = float("inf")
    said = message(asked, checkpoint, WORDS, Prompt("Where is Graz?", None), WORDS)
    expected = "layer 1: the state of record 2 is not finite (the prompt 'Where is Graz?'); try --dtype float32"
    assert said == expected


def test_a_line_of_records_that_is_wrong_names_file_line_and_key(tmp_path: Path) -> None:
    path = tmp_path / "retain.jsonl"
    talker.write_people(path, range(2))
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"subject": "s", "question": "Who?", "answer": "x", "task": "song"}) + "\n")
    assert message(read_records, path).startswith(f"{path}, line 9: task: ")
