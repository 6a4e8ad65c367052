"""``pipeline("image-text-to-text")``: the shortest way to ask a checkpoint, and steered all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import oracle, processors, tiny
from PIL import Image
from transformers import PreTrainedModel, pipeline

NEW = 6


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # the pipeline's own, of what it calls
@pytest.mark.parametrize("steps", [1, 4])
def test_the_pipeline_answers_steered(llava: PreTrainedModel, code_cache: None, tmp_path: Path, steps: int) -> None:
    picture, words = Image.radial_gradient("L").resize((16, 16)).convert("RGB"), "w30 w41 w52"
    asked: Any = [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": words}]}]
    how = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    batch = dict(processors.numbered().apply_chat_template(asked, **how).items())
    part = tiny.steering(llava, batch, steps=steps)
    directory = tiny.export(llava, part, tmp_path / "exported")
    processors.numbered().save_pretrained(directory)
    ask = pipeline("image-text-to-text", model=str(directory), trust_remote_code=True)
    said = ask(text=asked, return_full_text=False, max_new_tokens=NEW, do_sample=False)[0]["generated_text"]
    expected = oracle.generate(llava, *part, batch, max_new_tokens=NEW, do_sample=False)
    assert said.strip() == processors.numbered().batch_decode(expected, skip_special_tokens=True)[0]
    plain = llava.generate(**batch, max_new_tokens=NEW, do_sample=False)[:, batch["input_ids"].shape[1] :]
    assert said.strip() != processors.numbered().batch_decode(plain, skip_special_tokens=True)[0]
