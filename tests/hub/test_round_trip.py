"""BASE is a Hub id in every command, and what was pushed is loaded in a process that knows nothing of us."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders import talker, tiny
from builders.hub_server import BASE, NEW, TOKEN, FakeHub, publish
from safetensors.torch import load_file
from transformers.utils import logging

from mllmeraser import cli
from mllmeraser.bundle.bundle import load_bundle
from mllmeraser.console import console
from mllmeraser.inference.loading import load

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")
OPTIONS = (
    "--gate-scope=prompt --edit=add --layers=1 --gate-layer=own --gate-shape=identity --bandwidth=1 --strength=9 "
    "--landmarks=11 --augment"
)

# The snippet of the card first, then what it must show; the base and "off" are the card's words too.
READER = """
import json, sys
sys.modules["mllmeraser"] = None  # an import of it fails
import torch
ids = torch.tensor(json.loads(sys.argv[1]))
snippet = sys.stdin.read()
exec(snippet)
logits = lambda: model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1].tolist()
with torch.no_grad():
    steered = logits()
    model.config.steering_enabled = False
    off = logits()
words = processor.tokenizer.decode(ids[0])
try:
    AutoModelForImageTextToText.from_pretrained(path, revision=revision, trust_remote_code=False)
    native = "loaded"
except ValueError:
    native = "refused"
print(json.dumps({"steered": steered, "off": off, "words": words, "native": native, "type": type(model).__name__}))
"""


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A folder with a base that can be asked, and records."""
    talker.make_base(tmp_path / "base")
    talker.write_people(tmp_path / "forget.jsonl", range(3))
    talker.write_people(tmp_path / "retain.jsonl", range(3, 7))
    talker.write_refusals(tmp_path)
    return tmp_path


class Run:
    """Runs commands in this process; each must succeed. The document that it prints."""

    def __init__(self, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.capsys, self.patch = capsys, patch

    def __call__(self, *arguments: object) -> dict[str, object]:
        self.capsys.readouterr()
        self.patch.setattr(sys, "argv", ["mllmeraser", *map(str, arguments), "--json"])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = self.capsys.readouterr()
        assert exit_.value.code == 0, captured.err
        document: dict[str, object] = json.loads(captured.out)
        return document


@pytest.mark.slow
def test_from_the_hub_to_the_hub(
    hub: FakeHub, people: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logging.disable_progress_bar()
    monkeypatch.setattr(console, "quiet", False)
    run = Run(capsys, monkeypatch)
    commit = publish(hub, BASE, people / "base")
    base, bundle, out = f"{BASE}@{commit}", people / "r1.safetensors", people / "out"
    own = ["--recall", people / "recall.jsonl", "--erasure", people / "erasure.jsonl"]
    records = ["--forget", people / "forget.jsonl", "--retain", people / "retain.jsonl"]
    run("compute", base, *records, *own, *OPTIONS.split(), "--request-id=r1", "-o", bundle)
    meta = load_bundle(bundle).metadata
    assert (meta.base.repo_id, meta.base.revision) == (BASE, commit)
    assert run("export", base, "--bundle", bundle, "-o", out)["base"] == {"repo_id": BASE, "revision": commit}
    assert run("verify", out, "--base", base)["ok"]
    assert run("interference", base, "--bundle", bundle, "--forget", people / "forget.jsonl")["requests"] == ["r1"]
    data = ["--data", f"forget={people / 'forget.jsonl'}", "--data", f"retain={people / 'retain.jsonl'}"]
    results = people / "results.json"
    here = run("evaluate", f"base={base}", f"steered={out}", *data, "-o", results)
    pushed = run("push", out, NEW, "--results", results)
    assert [f["name"] for f in pushed["files"] if f["action"] == "copy"] == [tiny.SHARD]
    there = run("evaluate", f"base={base}", f"steered={NEW}@{pushed['tag']}", *data)
    assert there["rows"] == here["rows"]
    row = next(row for row in here["rows"] if row["model"] == "steered" and row["set"] == "forget")
    card = hub.repos[NEW].files["README.md"].data.decode()
    assert f"| forget | generation | {'picture' if row['modality'] == 'image_text' else 'text'} | {row['n']} |" in card

    # The command on the card makes the same bundle.
    command = re.search(r"^mllmeraser (compute .*)$", card, re.M)[1]
    for name in ("FORGET", "RETAIN", "RECALL", "ERASURE"):
        command = command.replace(f"{name}.jsonl", str(people / f"{name.lower()}.jsonl"))
    again = people / "again.safetensors"
    run(*command.replace("-o r1.safetensors", f"-o {again}").split())
    first, second = load_file(bundle), load_file(again)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert load_bundle(again).metadata == meta

    # The snippet of the card, in a fresh process with an empty cache.
    ids = tiny.prompt("llava", 8)["input_ids"]
    snippet = re.search(r"## Load\n\n```python\n(.*?)```", card, re.S)[1]
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(people / "home"), "HF_TOKEN": TOKEN}
    environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READER, json.dumps(ids.tolist())],
        input=snippet, env=environment, cwd=people, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout.splitlines()[-1])
    assert (read["native"], read["type"]) == ("refused", "MllmEraserLlavaForConditionalGeneration")
    assert read["words"] == talker.processor().tokenizer.decode(ids[0])
    for key, checkpoint in (("steered", load(out)), ("off", load(people / "base"))):
        with torch.no_grad():
            logits = checkpoint.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1]
        assert read[key] == logits.tolist()
    assert read["steered"] != read["off"]
