"""``transformers serve`` hands out the steered answers: to words and to pictures, at once and as a stream."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builders import oracle, processors, tiny
from clients import served
from transformers.image_utils import load_image

WORDS, NEW = "w30 w41 w52", 6


def asked(content: Any) -> dict[str, Any]:
    """What the processor makes of one turn of the user."""
    how = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    return dict(processors.numbered().apply_chat_template([{"role": "user", "content": content}], **how).items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_server_answers_steered(tmp_path: Path) -> None:
    base, words = tiny.model("llava"), asked(WORDS)
    part = tiny.steering(base, words, steps=4, shape="clip")
    directory = tiny.export(base, part, tmp_path / "exported")
    processors.numbered().save_pretrained(directory)
    script = [sys.executable, served.__file__, str(directory), WORDS, "--new", str(NEW)]
    done = subprocess.run(script, capture_output=True, text=True, check=True, cwd=tmp_path)
    replies = json.loads(done.stdout)
    shown = asked([{"type": "image", "image": load_image(served.picture())}, {"type": "text", "text": WORDS}])
    for name, batch in (("words", words), ("streamed", words), ("picture", shown)):
        expected = oracle.generate(base, *part, batch, max_new_tokens=NEW, do_sample=False)
        assert replies[name].split() == processors.numbered().batch_decode(expected)[0].split()
    plain = base.generate(**words, max_new_tokens=NEW, do_sample=False)[:, words["input_ids"].shape[1] :]
    assert replies["words"].split() != processors.numbered().batch_decode(plain)[0].split()
