"""A random LLaVA on disk that can be asked, people to ask it about, and refusals that its tokenizer has words for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parents[1] / "modeling"))

import tiny

from mllmeraser.records.prompts import Prompt

REFUSAL = "I cannot help with that request."
JOBS, CITIES = ("baker", "pilot", "nurse", "sailor"), ("Graz", "Lyon", "Turin", "Porto")
COUNT = ("one", "two", "three", "four", "five", "six", "seven", "eight")
SPOKEN = (
    "I cannot help with that request . ? : USER ASSISTANT What does person do Who is this Where live in a job city "
    "tell me the of please"
)
WORDS = dict.fromkeys([*SPOKEN.split(), *JOBS, *CITIES, *COUNT])
TEMPLATE = (
    "USER: {% for part in messages[0]['content'] %}{% if part['type'] == 'image' %}<image> {% else %}"
    "{{ part['text'] }}{% endif %}{% endfor %} ASSISTANT:"
    "{% if not add_generation_prompt %} {{ messages[1]['content'][0]['text'] }}{% endif %}"
)


def make_base(directory: Path, seed: int = 0) -> Path:
    """Write a checkpoint with random weights; two of one seed are equal."""
    tiny.model("llava", seed).save_pretrained(directory)
    processor().save_pretrained(directory)
    return directory


def processor() -> LlavaProcessor:
    """A tokenizer of whole words, pictures of 16 pixels, and a chat template."""
    known = ["<pad>", "<s>", "</s>", "<unk>", *WORDS]
    vocabulary = known + [f"word{i}" for i in range(tiny.VOCAB - 1 - len(known))] + ["<image>"]
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        model_input_names=["input_ids", "attention_mask"],
    )
    return LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"height": 16, "width": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def picture(number: int) -> Image.Image:
    """A plain picture; each number has its own colour."""
    return Image.new("RGB", (16, 16), (37 * number % 256, 101 * number % 256, 173 * number % 256))


def prompts() -> list[Prompt]:
    """Of mixed lengths, with and without a picture."""
    return [
        Prompt("What does person one do?", None),
        Prompt("Who is this?", picture(1)),
        Prompt("tell me please the job of person two in the city of Graz", None),
        Prompt("Where does this person live? tell me the city please.", picture(2)),
        Prompt("Who?", None),
        Prompt("What is the job of this person?", picture(3)),
    ]


def write_records(path: Path, records: list[dict[str, object]]) -> Path:
    """A JSON Lines file."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def write_people(path: Path, people: range) -> Path:
    """For each person a picture with two questions, and two questions in words, beside ``path``."""
    records: list[dict[str, object]] = []
    for number in people:
        name, subject, image = COUNT[number], f"subject-{number}", f"{path.stem}-{number}.png"
        picture(number).save(path.parent / image)
        records += [
            _record(subject, image, "What does this person do?", JOBS[number % 4]),
            _record(subject, image, "Where does this person live?", CITIES[number % 4]),
            _record(subject, None, f"What does person {name} do?", JOBS[number % 4]),
            _record(subject, None, f"Where does person {name} live?", CITIES[number % 4]),
        ]
    return write_records(path, records)


def write_refusals(folder: Path) -> tuple[Path, Path]:
    """Recall records, and erasure records whose answers are refusals, for a model that has none of its own."""
    asked = [f"tell me the job of person {name}" for name in COUNT[:4]]
    recall = [_record(f"recall-{i}", None, text, "baker") for i, text in enumerate(asked)]
    erasure = [_record(f"erasure-{i}", None, f"please {text}", REFUSAL) for i, text in enumerate(asked)]
    return write_records(folder / "recall.jsonl", recall), write_records(folder / "erasure.jsonl", erasure)


def _record(subject: str, image: str | None, question: str, answer: str) -> dict[str, object]:
    return {
        "subject": subject,
        "image": image,
        "question": question,
        "prompt": question,
        "answer": answer,
        "task": "generation",
    }
