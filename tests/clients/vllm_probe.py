"""A steered export in a real vLLM: answers equal to plain transformers', the switch honoured, scope ``prompt`` refused.

Run in an environment with vLLM (``docs/serving.md`` makes one without a GPU) and without need of this package::

    python tests/clients/vllm_probe.py TOKEN_EXPORT PROMPT_EXPORT RECORDS.jsonl [RECORDS.jsonl ...] [--each 8]

TOKEN_EXPORT was computed with ``--gate-scope token``, PROMPT_EXPORT without. Each record is asked three times: with
prompts prefilled whole, in chunks of ``--chunk`` tokens, and with ``steering_enabled`` false. Prints one JSON object;
exit 1 unless every answer is that of ``generate`` in transformers and PROMPT_EXPORT was refused.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from vllm import LLM, SamplingParams

NEW = 24


def turns(files: list[Path], each: int) -> list[tuple[str, Path | None]]:
    """What is asked, and the picture that is shown, of the first records of each file."""
    asked = []
    for file in files:
        for line in file.read_text().splitlines()[:each]:
            record = json.loads(line)
            picture = file.parent / record["image"] if record["image"] else None
            asked.append((record.get("prompt") or record["question"], picture))
    return asked


def by_transformers(directory: Path, asked: list[tuple[str, Path | None]], **switch: Any) -> list[str]:
    """The greedy replies of plain ``generate``."""
    kind: dict[str, Any] = {"trust_remote_code": True, "dtype": torch.float32, **switch}
    model = AutoModelForImageTextToText.from_pretrained(directory, **kind).eval()
    processor = AutoProcessor.from_pretrained(directory, trust_remote_code=True)
    replies = []
    for text, picture in asked:
        shown = [{"type": "image", "image": Image.open(picture)}] if picture else []
        message = {"role": "user", "content": [*shown, {"type": "text", "text": text}]}
        how = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
        inputs = dict(processor.apply_chat_template([message], **how))
        inputs.pop("token_type_ids", None)
        said = model.generate(**inputs, max_new_tokens=NEW, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        replies.append(processor.decode(said, skip_special_tokens=True))
    return replies


def by_vllm(directory: Path, asked: list[tuple[str, Path | None]], **engine: Any) -> list[str]:
    """The greedy replies of vLLM's Transformers backend, all asked at once."""
    options: dict[str, Any] = {"model_impl": "transformers", "trust_remote_code": True, "dtype": "float32", **engine}
    llm = LLM(str(directory), enforce_eager=True, max_model_len=256, max_num_seqs=8, **options)
    conversations = []
    for text, picture in asked:
        shown = [{"type": "image_url", "image_url": {"url": data_url(picture)}}] if picture else []
        conversations.append([{"role": "user", "content": [*shown, {"type": "text", "text": text}]}])
    # vLLM leaves the beginning-of-sequence token to the template; transformers writes it where the template does not.
    tokenizer = llm.get_tokenizer()
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False)
    whole = {"add_special_tokens": not rendered.startswith(tokenizer.bos_token or "\0")}
    said = SamplingParams(temperature=0, max_tokens=NEW)
    outputs = llm.chat(conversations, said, use_tqdm=False, tokenization_kwargs=whole)
    return [output.outputs[0].text for output in outputs]


def data_url(picture: Path) -> str:
    """A PNG as a URL that holds it."""
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def refusal(directory: Path) -> str | None:
    """Our error, for which vLLM gives no model; null if it serves one, or fails for another reason."""
    call = f"import pathlib, vllm_probe as v; v.by_vllm(pathlib.Path({str(directory.resolve())!r}), [('Hello?', None)])"
    done = subprocess.run([sys.executable, "-c", call], cwd=Path(__file__).parent, capture_output=True, text=True)
    said = re.findall(r"SteeringError: (.*)", done.stdout + done.stderr)  # its workers write to both
    return said[0] if said and done.returncode else None


def main() -> int:
    """Ask, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("token_export", type=Path)
    parser.add_argument("prompt_export", type=Path)
    parser.add_argument("records", type=Path, nargs="+")
    parser.add_argument("--each", type=int, default=8, help="records of each file")
    parser.add_argument("--chunk", type=int, default=24, help="tokens of a chunk of prefill")
    options = parser.parse_args()
    asked = turns(options.records, options.each)
    on = by_transformers(options.token_export, asked)
    off = by_transformers(options.token_export, asked, steering_enabled=False)
    chunked = {"enable_chunked_prefill": True, "max_num_batched_tokens": options.chunk}
    runs = {
        "steered": (on, by_vllm(options.token_export, asked)),
        "steered, prefill in chunks": (on, by_vllm(options.token_export, asked, **chunked)),
        "off": (off, by_vllm(options.token_export, asked, hf_overrides={"steering_enabled": False})),
    }
    refused = refusal(options.prompt_export)
    equal = {name: sum(a == b for a, b in zip(*pair, strict=True)) for name, pair in runs.items()}
    differ = [
        {"run": name, "asked": text, "transformers": ours, "vllm": theirs}
        for name, pair in runs.items()
        for (text, _), ours, theirs in zip(asked, *pair, strict=True)
        if ours != theirs
    ]
    moved = sum(a != b for a, b in zip(on, off, strict=True))
    report = {"asked": len(asked), "moved": moved, "equal": equal, "differ": differ, "scope prompt": refused}
    print(json.dumps(report, indent=2))
    return 0 if not differ and moved and refused else 1


if __name__ == "__main__":
    sys.exit(main())
