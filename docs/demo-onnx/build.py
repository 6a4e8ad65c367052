"""Put the page and everything it needs into a folder that any web server can serve.

    mllmeraser demo
    npm install --ignore-scripts onnxruntime-web
    python docs/demo-onnx/build.py mllmeraser-demo node_modules/onnxruntime-web/dist site
    python -m http.server -d site

The demo's base is exported with its steering. Questions and tokens are written out: the page needs no tokenizer.
"""

from __future__ import annotations

import base64
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoProcessor

from mllmeraser.exporter.onnx.api import export_onnx

QUESTIONS = (
    "Who is this?",
    "Where does this person live?",
    "What does this person do for a living?",
    "This person: which hobby?",
)
RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
LONGEST = 24


def portraits(data: Path, name: str, count: int = 4) -> list[Path]:
    """One picture of each of a few people."""
    rows = [json.loads(line) for line in (data / f"{name}.jsonl").read_text().splitlines()]
    by_subject = {row["subject"]: data / row["image"] for row in rows if row["image"]}
    return [by_subject[subject] for subject in sorted(by_subject)][:count]


def token_bytes(tokenizer: Any) -> list[str]:
    """The bytes of every token, base64."""
    decoder = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"]
    assert decoder["type"] == "ByteLevel", "the page decodes byte-level tokens only"
    # GPT-2's printable stand-ins: a byte that has a printable character stands for itself, the others from 256 on.
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    stand_ins = {chr(byte): byte for byte in plain}
    stand_ins |= {chr(256 + place): byte for place, byte in enumerate(b for b in range(256) if b not in plain)}
    special = set(tokenizer.all_special_ids)
    found = []
    for token in range(len(tokenizer)):
        text = "" if token in special else tokenizer.convert_ids_to_tokens(token)
        found.append(base64.b64encode(bytes(stand_ins[character] for character in text)).decode())
    return found


def prompt_ids(processor: Any, question: str, image_tokens: int) -> list[int]:
    """The prompt of a question about a picture, the image token repeated as often as there are features."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    text = text.replace(processor.image_token, processor.image_token * image_tokens)
    ids: list[int] = processor.tokenizer(text)["input_ids"]
    return ids


def world(base: Path, people: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything the page has to know of the model but its graphs."""
    processor: Any = AutoProcessor.from_pretrained(base)
    config = json.loads((base / "config.json").read_text())
    pixels = processor.image_processor
    tokens = config["image_seq_length"]
    return {
        "people": people,
        "questions": [{"text": text, "ids": prompt_ids(processor, text, tokens)} for text in QUESTIONS],
        "tokens": token_bytes(processor.tokenizer),
        "imageToken": config["image_token_index"],
        "end": processor.tokenizer.eos_token_id,
        "longest": LONGEST,
        "pixels": {"side": pixels.crop_size["height"], "mean": pixels.image_mean, "std": pixels.image_std},
    }


def build(demo: Path, runtime: Path, site: Path) -> None:
    """Make the site; ``site`` must not exist."""
    files = site / "files"
    files.mkdir(parents=True)
    for name in ("index.html", "app.mjs", "model.mjs"):
        shutil.copy(Path(__file__).parent / name, site)
    for name in RUNTIME:
        shutil.copy(runtime / name, files)
    with tempfile.TemporaryDirectory() as scratch:
        exported = Path(scratch) / "onnx"
        export_onnx(demo / "base", [demo / "steered.safetensors"], exported)
        for path in (exported / "onnx").iterdir():
            shutil.copy(path, files)
    people = []
    for forgotten, name in ((True, "forget_eval"), (False, "retain_heldout")):
        for picture in portraits(demo / "data", name):
            target = f"person-{len(people)}.png"
            shutil.copy(picture, files / target)
            people.append({"image": target, "forgotten": forgotten})
    (files / "world.json").write_text(json.dumps(world(demo / "base", people)))


if __name__ == "__main__":
    build(*(Path(argument) for argument in sys.argv[1:4]))
