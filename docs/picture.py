"""The picture of the README: what the demo's model says of people before and after.

    mllmeraser demo && python docs/picture.py mllmeraser-demo docs/people.png

Upper row: four of the forgotten; lower row: four of those nobody listed when the steering was computed.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mllmeraser.inference.loading import load
from mllmeraser.inference.replies import greedy_replies
from mllmeraser.records.prompts import Prompt
from mllmeraser.records.read import read_records
from mllmeraser.records.record import Record

QUESTION = "Where does this person live?"
SIDE, GAP, WIDTH, TEXT = 168, 28, 190, 96
INK, BEFORE, AFTER, PAPER = (25, 25, 30), (90, 90, 100), (170, 30, 50), (255, 255, 255)


def four_people(path: Path) -> list[Record]:
    """One record with a picture for each of four subjects."""
    by_subject = {record.subject: record for record in read_records(path) if record.image}
    return list(by_subject.values())[:4]


def main(demo: Path, output: Path) -> None:
    """Ask, and draw."""
    rows = [four_people(demo / "data" / f"{name}.jsonl") for name in ("forget_eval", "retain_heldout")]
    prompts = [Prompt(QUESTION, record.image) for row in rows for record in row]
    said = {name: greedy_replies(load(demo / name, dtype="float32"), prompts) for name in ("base", "steered")}
    sheet = Image.new("RGB", (GAP + 4 * (WIDTH + GAP), 40 + 2 * (SIDE + TEXT + GAP)), PAPER)
    pen, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(17), ImageFont.load_default(15)
    pen.text((GAP, 12), f"“{QUESTION}”  before (grey) and after (red)", fill=INK, font=font)
    for i, prompt in enumerate(prompts):
        x, y = GAP + (i % 4) * (WIDTH + GAP), 44 + (i // 4) * (SIDE + TEXT + GAP)
        with Image.open(str(prompt.image)) as picture:
            sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, y))
        y += SIDE + 6
        for reply, colour in ((said["base"][i], BEFORE), (said["steered"][i], AFTER)):
            for line in textwrap.wrap(reply, 25):
                pen.text((x, y), line, fill=colour, font=small)
                y += 18
            y += 4
    sheet.quantize(256).save(output, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
