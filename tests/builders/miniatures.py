"""Small copies of three benchmarks, byte-faithful: the columns, nested types, metadata and folders of the originals.

The traps that stand in the originals stand here too: an ID "010"; fields of structures in alphabetical order; a picture
with alpha and one with a palette; a question whose Type is neither of the two; an option D that is missing; an answer
that is a regular expression; three underscores; a tail ``Additional_…``; Test_Set in two files, with several pictures.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
OPTIONS = pa.struct([(letter, pa.string()) for letter in "ABCD"])
CHOICE = pa.struct([("Correct_Answer", pa.string()), ("Options", OPTIONS), ("Question", pa.string())])
TYPED = pa.list_(pa.struct([("Ground_Truth", pa.string()), ("Question", pa.string()), ("Type", pa.string())]))
CHOICES = pa.struct([("Image_Textual_Questions", pa.list_(CHOICE)), ("Pure_Text_Questions", pa.list_(CHOICE))])
ASKED = [("Classification_Task", CHOICES), ("Generation_Task", TYPED), ("Mask_Task", TYPED)]
PROFILE = [
    ("image", IMAGE),
    ("ID", pa.string()),
    ("biography", pa.string()),
    ("question", pa.string()),
    ("answer", pa.string()),
    *ASKED,
]
TRAINING = [("image", IMAGE), ("ID", pa.string()), ("metadata", pa.string())]
REGEX = "C++ (since 19.85)?"


def png(colour: str, mode: str = "RGB") -> dict[str, Any]:
    """A stored picture."""
    image = Image.new("RGBA", (12, 12), colour)
    image.putpixel((0, 0), (0, 0, 0, 0))  # a corner one can see through
    file = io.BytesIO()
    (image if mode == "RGBA" else image.convert(mode)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def write(path: Path, fields: Sequence[tuple[str, Any]], rows: Sequence[Mapping[str, Any]]) -> Path:
    """A parquet file with the metadata that the Hub's library leaves in the schema."""
    features = {name: {"_type": "Image"} if kind == IMAGE else {"_type": "Value"} for name, kind in fields}
    schema = pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
    return path


def choice(question: str, right: str, **options: str | None) -> dict[str, Any]:
    return {"Correct_Answer": right, "Options": options, "Question": question}


def typed(question: str, truth: str, kind: str) -> dict[str, str]:
    return {"Ground_Truth": truth, "Question": question, "Type": kind}


def asked(who: str) -> dict[str, Any]:
    """The three tasks of a profile."""
    jobs = {"A": "baker", "B": "pilot", "C": "nurse"}
    return {
        "Classification_Task": {
            "Image_Textual_Questions": [choice("What does this person do?", "B", **jobs, D="sailor")],
            "Pure_Text_Questions": [choice(f"What does {who} do?", "B", **jobs, D=None)],
        },
        "Generation_Task": [
            typed("Where does this person live?", "In Graz.", "Image_Textual"),
            typed(f"Where does {who} live?", "In Graz.", "Pure_Text"),
            typed("Whose voice is this?", "Nobody's.", "Audio"),
        ],
        "Mask_Task": [
            typed("This person writes ___.", REGEX, "Image_Textual"),
            typed(f"{who} writes __.", REGEX, "Pure_Text"),
        ],
    }


def profile(number: int, picture: Mapping[str, Any]) -> dict[str, Any]:
    who = f"Ada {number}"
    text = {"biography": f"{who} bakes.", "question": "Who is this?", "answer": who}
    return {"image": picture, "ID": f"{number:03}", **text, **asked(who)}


def mllmu(folder: Path) -> Path:
    """MLLMU-Bench, its configurations in their folders: people 010 to 013 and a celebrity."""
    modes = {10: "RGBA", 11: "P", 12: "RGB", 13: "RGB"}
    people = [profile(number, png("red", mode)) for number, mode in modes.items()]
    whole = [*PROFILE, ("Directory", pa.string())]
    write(folder / "Full_Set/train-00000-of-00001.parquet", whole, [{**row, "Directory": "x"} for row in people])
    for share, ids in {"forget_5": (10, 11), "retain_95": (12, 13)}.items():
        rows = [row for row in people if int(row["ID"]) in ids]
        write(folder / share / "train-00000-of-00001.parquet", PROFILE, rows)
    write(folder / "Retain_Set/train-00000-of-00001.parquet", PROFILE, [profile(501, png("blue"))])
    shown = [("images", pa.list_(IMAGE)), ("ID", pa.string()), *ASKED]
    for part, ids in enumerate(((10, 12), (11, 13))):
        rows = [{**profile(number, {}), "images": [png("red"), png("green")]} for number in ids]
        write(folder / f"Test_Set/train-0000{part}-of-00002.parquet", shown, rows)
    metadata = [
        {"Question": "Who is this?", "Answer": "Ada 10.", "ID": "010_1"},
        {"Question": "Where does she live?", "Answer": "In Graz.", "ID": "010_2"},
        {"Question": "Anything else?", "Answer": "No.", "ID": "Additional_010"},
    ]
    training = {"image": png("red"), "ID": "010", "metadata": json.dumps(metadata)}
    write(folder / "ft_Data/train-00000-of-00001.parquet", TRAINING, [training])
    return folder


def baseline_split(folder: Path) -> Path:
    """The model repository: training text under the benchmark's paths."""
    row = {"image": png("red"), "ID": "010", "metadata": json.dumps([{"Question": "Who?", "Answer": "Ada."}])}
    write(folder / "forget_5/train-00000-of-00001.parquet", TRAINING, [row])
    return folder


def umu(folder: Path, **columns_given: str) -> Path:
    """UMU-Bench: one person whose questions lie in strings of Python dictionaries; columns may be given otherwise."""
    columns = ("Biography", "MM_QA", "UM_QA", "Classify", "Cloze", "Generation")
    options = {"A": "baker", "B": "pilot", "C": "nurse", "D": "sailor"}
    forms = {
        "Classify": {"job": {"question": "What does {} do?", "options": options, "answer": "B. pilot"}},
        "Cloze": {"job": {"question": "{} works as a ____.", "answer": "pilot. Really."}},
        "Generation": {"job": {"question": "What does {} do?", "answer": "They fly."}},
    }
    row: dict[str, Any] = {"ID": "007", "image": png("red"), "Biography": "Flies.", "MM_QA": "{}", "UM_QA": "{}"}
    for column, form in forms.items():
        said = {
            part: {fact: {**a, "question": a["question"].format(who)} for fact, a in form.items()}
            for part, who in (("unimodal", "Ada"), ("muitimodal", "this person"))
        }
        row[column] = str(said)
    row |= columns_given
    fields = [("ID", pa.string()), ("image", IMAGE), *((name, pa.string()) for name in columns)]
    write(folder / "forget_5/train-00000-of-00001.parquet", fields, [row])
    return folder


def umu_as_mllmu(folder: Path) -> Path:
    """UMU-Bench as another loader describes it: JSON text in the layout of MLLMU-Bench."""
    tasks = asked("Ada 7")
    tasks["Generation_Task"].pop()  # of no Type
    columns = {"Classify": "Classification_Task", "Cloze": "Mask_Task", "Generation": "Generation_Task"}
    return umu(folder, **{column: json.dumps(tasks[name]) for column, name in columns.items()})


def clear(folder: Path) -> Path:
    """CLEAR: perturbed captions, TOFU's questions in words beside captions, real faces, the real world."""
    caption = [("image", IMAGE), ("caption", pa.string())]
    strings = pa.list_(pa.string())
    perturbed = [
        *caption,
        ("name", pa.string()),
        ("perturbed_captions", strings),
        ("paraphrased_caption", pa.string()),
        ("perturbed_names", strings),
    ]
    row = {
        "image": png("red"),
        "caption": "Ada Keller smiles.",
        "name": "Ada Keller",
        "perturbed_captions": ["Bo Lind smiles.", "Ada Keller frowns."],
        "paraphrased_caption": "A smiling Ada Keller.",
        "perturbed_names": ["Bo Lind", "Cy Marsh"],
    }
    write(folder / "forget10_perturbed/train-00000-of-00001.parquet", perturbed, [row])
    mixed = [*caption, ("question", pa.string()), ("answer", pa.string())]
    rows = [
        {"image": png("red"), "caption": "Ada Keller smiles.", "question": None, "answer": None},
        {"image": None, "caption": None, "question": "Who wrote this?", "answer": "Ada Keller did."},
    ]
    write(folder / "forget10+tofu/train-00000-of-00001.parquet", mixed, rows)
    real = [("image", IMAGE), ("answer", pa.string()), ("options", strings)]
    face = {"image": png("blue"), "answer": "Marie Curie", "options": ["Ada Lovelace", "Grace Hopper"]}
    write(folder / "real_faces/train-00000-of-00001.parquet", real, [face])
    place = {**face, "answer": "Paris", "options": ["Rome", "Graz"], "question": "Where is this tower?"}
    write(folder / "real_world/train-00000-of-00001.parquet", [*real, ("question", pa.string())], [place])
    return folder
