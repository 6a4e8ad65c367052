"""``transformers serve`` hands out the steered answers: to words and to pictures, at once and as a stream."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import oracle, processors, tiny
from clients import served
from openai import OpenAI, OpenAIError
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


# What a client may send with a question: sampling, and a whole generation_config of its own.
SETTINGS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a search": {"num_beams": 4},
    "sampling": {"do_sample": True, "temperature": 4.0, "top_k": 0},
    "no cache": {"use_cache": False},
    "a static cache": {"cache_implementation": "static"},
    "a prompt in pieces": {"prefill_chunk_size": 2},
    "a lookup": {"prompt_lookup_num_tokens": 2},
    "an early exit": {"assistant_early_exit": 1},
    "guidance": {"guidance_scale": 1.5},
    "no word twice": {"no_repeat_ngram_size": 1},
    "a long reply": {"min_new_tokens": 20, "max_new_tokens": 20},
    "half the words forbidden": {"suppress_tokens": list(range(0, tiny.VOCAB, 2))},
    "a switch": {"steering_enabled": False, "steering_strength": 0.0},
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_nothing_that_a_client_sets_undoes_the_seal(tmp_path: Path) -> None:
    """Behind a seal nothing depends on the question: two about the forgotten get one reply, or an error."""
    base = tiny.knowing("llava")
    directory = tiny.export(base, tiny.recognising(base), tmp_path / "exported")
    processors.numbered().save_pretrained(directory)
    questions = [f"w30 w{tiny.NAME} w52 w11", f"w61 w{tiny.NAME} w18 w40"]
    told, refused = {}, {}
    with served.serving(directory) as address:
        client = OpenAI(base_url=address, api_key="none", max_retries=0)
        for name, settings in SETTINGS.items():
            how = {"max_new_tokens": NEW, "eos_token_id": tiny.SPECIAL, **settings}
            more = {"generation_config": json.dumps(how), "seed": 1}
            for question in questions:
                turn: Any = [{"role": "user", "content": question}]
                try:
                    reply = client.chat.completions.create(model=str(directory), messages=turn, extra_body=more)
                    told.setdefault(name, []).append(reply.choices[0].message.content)
                except OpenAIError as error:
                    refused[name] = str(error)
    assert set(refused) <= {"an early exit", "a prompt in pieces"}, refused
    assert {name for name, replies in told.items() if len(set(replies)) > 1} == set()
    for settings in ({}, SETTINGS["a search"], SETTINGS["no word twice"]):  # the base's replies tell them apart
        without = [base.generate(**asked(question), max_new_tokens=NEW, **settings) for question in questions]
        assert not torch.equal(without[0][:, -NEW:], without[1][:, -NEW:])
