"""CLEAR (data set ``therem/CLEAR``, arXiv 2410.18057): captions and names of fictitious people, faces, and the world.

The columns of a row say what it asks: a caption of the picture (the ``*_perturbed`` configurations add a paraphrase and
perturbed captions), the name of the person in it, a question of TOFU in words, or a question about a real picture with
wrong options. Two generations of the data set are about: older snapshots lack the columns ``name``, ``perturbed_names``
and ``paraphrased_caption``. There the name is the first run of capitalised words in a caption. The nine wordings that
ask for a caption are the benchmark's. The place of a row decides which wording its picture gets; the original draws
anew in every run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import regex

from mllmeraser.console import console
from mllmeraser.records.parquet import Row, Table
from mllmeraser.records.prompts import Picture
from mllmeraser.records.record import Record

CAPTIONS = frozenset({"image", "caption"})
REAL = frozenset({"image", "answer", "options"})
FOR_A_CAPTION = (
    "What can you see in this picture?",
    "Tell me about the content of this image",
    "Can you give a description of the image?",
    "What is depicted in the image?",
    "Explain what you observe in the picture.",
    "Describe the image in detail.",
    "What is the main subject of this image?",
    "Can you describe the scene or objects in the image?",
    "What is happening in this image?",
)
FOR_THE_NAME = "The name of the person on the image is "
WHICH_NAME = "What is the name of the person in the image?"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def questions(table: Table) -> list[Record]:
    """The records of any configuration.

    Raises:
        InputError: a row holds no record; the message names file, row and part.
    """
    ask = _about_the_real if table.columns >= REAL else _about_the_fictitious
    if table.columns >= CAPTIONS:
        lacking = sorted({"name", "perturbed_names", "paraphrased_caption"} - table.columns)
        what = f"without {', '.join(lacking)}" if lacking else "with all its columns"
        names = "; names are read out of the captions" if "name" in lacking else ""
        console.print(f"{table.files[0].parent}: CLEAR, captions {what}{names}", soft_wrap=True)
    return [record for place, row in enumerate(table.rows()) for record in ask(row, place)]


# "Against a wall, Ada Keller smiles.": two capitalised words at least, behind a first word that is no name.
_NAME = regex.compile(
    r"(?:^(?:An?|The|In|At|On|With|Here)\b )?((?:\p{Lu}[\p{L}\p{M}'’.-]* )+\p{Lu}[\p{L}\p{M}'’-]*\p{L})"
)


def name_in(caption: str) -> str | None:
    """The name in a caption of the older generation; null if nothing in it looks like one.

    >>> name_in("In the rain, Ada Keller-Lund smiles.")
    'Ada Keller-Lund'
    """
    found = _NAME.search(caption)
    return found[1] if found else None


def _about_the_fictitious(row: Row, place: int) -> Iterator[Record]:
    values = row.values
    known = values.get("name") or name_in(values.get("caption") or "")
    name = known or f"row {place}"
    if values.get("image") is None:
        yield row.record(
            "question",
            subject=name,
            question=values.get("question"),
            answer=values.get("answer"),
            task="generation",
            prompt=values.get("question"),
        )
        return
    picture = row.picture(values["image"], f"row {place}")
    asked = random.Random(f"caption {place}").choice(FOR_A_CAPTION)
    yield row.record(
        "caption",
        subject=name,
        question=asked,
        answer=values.get("caption"),
        task="generation",
        prompt=asked,
        image=picture,
        match=known or (),
        paraphrase=values.get("paraphrased_caption"),
        perturbed=values.get("perturbed_captions") or (),
    )
    if values.get("name"):
        others = tuple(values.get("perturbed_names") or ())
        yield _named(row, FOR_THE_NAME, name, others, picture)
        if others:
            yield _chosen(row, WHICH_NAME, name, others, picture, place)


def _about_the_real(row: Row, place: int) -> Iterator[Record]:
    """Real faces and other things of the real world: the answer, with wrong options beside it."""
    picture, answer = row.picture(row.values["image"], f"row {place}"), row.text("answer")
    others = tuple(option for option in row.values["options"] or () if option != answer)
    question = row.values.get("question")
    yield _named(row, question or FOR_THE_NAME, answer, others, picture)
    yield _chosen(row, question or WHICH_NAME, answer, others, picture, place)


def _named(row: Row, question: str, answer: str, others: tuple[str, ...], picture: Picture) -> Record:
    return row.record(
        "name",
        subject=answer,
        question=question,
        answer=answer,
        task="generation",
        prompt=question,
        image=picture,
        perturbed=others,
    )


def _chosen(row: Row, question: str, answer: str, others: tuple[str, ...], picture: Picture, place: int) -> Record:
    """Multiple choice, worded as in MMUnlearner's script. The place of the row decides the place of the answer."""
    texts = list(others)
    texts.insert(random.Random(f"options {place}").randint(0, len(texts)), answer)
    options = dict(zip(LETTERS, texts, strict=False))
    listed = "\n".join(f"{letter}. {text}" for letter, text in options.items())
    return row.record(
        "options",
        subject=answer,
        question=question,
        answer=LETTERS[texts.index(answer)],
        task="classification",
        options=options,
        prompt=f"{question}\n{listed}\n",
        image=picture,
    )
