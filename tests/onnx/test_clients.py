"""Real clients on the demo's model: the forgotten are refused, the others answered, every token as in PyTorch."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlamaForCausalLM, LlavaForConditionalGeneration

from mllmeraser.bundle.bundle import Bundle, save_bundle
from mllmeraser.demo.data import write_data
from mllmeraser.demo.run import CHECKPOINT
from mllmeraser.exporter.onnx.api import export_onnx, onnx_steer
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.loading import load
from mllmeraser.modeling_patches.modeling_mllmeraser import steered_class
from mllmeraser.records.read import read_records
from mllmeraser.steering.compute import compute
from mllmeraser.steering.in_process import torch_tensors
from mllmeraser.steering.recipe import make_recipe

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of other people's builders and runtimes

CLIENTS = Path(__file__).parent / "clients"
PAGE = Path(__file__).parents[2] / "docs" / "demo-onnx" / "build.py"
REFUSAL = "I cannot help"


@dataclass
class Forgetful:
    """The demo's model in PyTorch, plain and steered, and what was asked of it."""

    folder: Path
    base: Any
    steered: Any
    processor: Any
    bundle: Bundle

    def ask(self, model: Any, prompt: str, image: Path | None) -> list[int]:
        """The new tokens of a greedy answer."""
        content: list[dict[str, str]] = [{"type": "text", "text": prompt}]
        if image is not None:
            content.insert(0, {"type": "image"})
        text = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        picture = None if image is None else Image.open(image)
        inputs = self.processor(images=picture, text=text, return_tensors="pt")
        with torch.no_grad():
            tokens = model.generate(**inputs, max_new_tokens=24, do_sample=False)
        found: list[int] = tokens[0, inputs["input_ids"].shape[1] :].tolist()
        return found

    def text(self, tokens: list[int]) -> str:
        """An answer in words."""
        return str(self.processor.tokenizer.decode(tokens, skip_special_tokens=True)).strip()

    def questions(self, name: str, count: int, images: bool = True) -> list[dict[str, Any]]:
        """Records of a set of the demo, as the clients take them."""
        rows = [json.loads(line) for line in (self.folder / "data" / f"{name}.jsonl").read_text().splitlines()]
        rows = [row for row in rows if images or row["image"] is None]
        chosen = rows[:: max(1, len(rows) // count)][:count]
        where = self.folder / "data"
        return [{"prompt": r["prompt"], "image": r["image"] and str(where / r["image"])} for r in chosen]


RECIPES = {
    "conversation": {
        "gate_scope": "conversation",
        "edit": "seal",
        "gate_shape": "step:0.5",
        "gate_layer": "4",
        "layers": "6",
        "augment": False,
    },
    "prompt": {
        "gate_scope": "prompt",
        "edit": "add",
        "gate_shape": "step:0.5",
        "gate_layer": "4",
        "layers": "4",
        "strength": "1",
        "prompt_positions": "all",
        "augment": False,
        "calibration_share": 0.0,
    },
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's base and its records."""
    folder = tmp_path_factory.mktemp("demo")
    write_data(folder / "data")
    shutil.copytree(CHECKPOINT, folder / "base")
    return folder


@pytest.fixture(scope="module", params=RECIPES)
def forgetful(request: pytest.FixtureRequest, demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Forgetful:
    """The demo's removal request, as each rule suppresses it."""
    folder = tmp_path_factory.mktemp("forgetful")
    for name in ("data", "base"):
        (folder / name).symlink_to(demo / name)
    forget, retain = (read_records(demo / "data" / f"{name}.jsonl")[::2] for name in ("forget", "retain"))
    recipe = make_recipe("llava", RECIPES[request.param])
    bundle = compute(load(demo / "base", dtype="float32"), forget, retain, recipe).bundle
    save_bundle(bundle, folder / "steered.safetensors")
    base = LlavaForConditionalGeneration.from_pretrained(demo / "base", dtype=torch.float32).eval()
    steered = steered_class("llava").from_base(base, bundle.steering(), torch_tensors(bundle))
    return Forgetful(folder, base, steered, AutoProcessor.from_pretrained(demo / "base"), bundle)


@pytest.fixture(scope="module")
def graphs(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base's graphs: what an export wrote, with the twins in place of the steered graphs."""
    forget, retain = (read_records(demo / "data" / f"{name}.jsonl")[::9] for name in ("forget", "retain"))
    anybody = compute(load(demo / "base", dtype="float32"), forget, retain, make_recipe("llava", RECIPES["prompt"]))
    folder = tmp_path_factory.mktemp("graphs") / "out"
    export_onnx(demo / "base", [anybody.bundle], folder)
    for name, entry in json.loads((folder / "mllmeraser.json").read_text())["graphs"].items():
        (folder / entry["twin"]).replace(folder / name)
    (folder / "mllmeraser.json").unlink()
    return folder


@pytest.fixture(scope="module")
def exported(forgetful: Forgetful, graphs: Path) -> Path:
    """The steered graphs."""
    output = forgetful.folder / "onnx"
    onnx_steer(graphs, [forgetful.bundle], output)
    return output


def test_verify_hears_what_is_said_behind_a_seal(forgetful: Forgetful, graphs: Path, tmp_path: Path) -> None:
    metadata = forgetful.bundle.metadata.model_copy(deep=True)
    metadata.method.calibration["refused"] = 1.0  # as if it had been calibrated
    tensors = forgetful.bundle.tensors
    noise = np.random.default_rng(1)
    meaningless = {
        name: noise.standard_normal(array.shape, np.float32) if name.endswith(".states") else array
        for name, array in tensors.items()
    }
    onnx_steer(graphs, [replace(forgetful.bundle, metadata=metadata)], tmp_path / "steered")
    onnx_steer(graphs, [replace(forgetful.bundle, metadata=metadata, tensors=meaningless)], tmp_path / "noise")
    found = {name: verify(tmp_path / name).checks for name in ("steered", "noise")}
    failed = {name: [check.name for check in checks if not check.ok] for name, checks in found.items()}
    seals = metadata.edit == "seal"
    assert failed == {"steered": [], "noise": ["refuses"] if seals else []}
    said = next(check.detail for check in found["steered"] if check.name == "refuses")
    assert REFUSAL in said if seals else said.startswith("not asked")


@pytest.mark.parametrize("which", ["steered", "base"])
def test_transformers_js(forgetful: Forgetful, exported: Path, packages: Path, tmp_path: Path, which: str) -> None:
    asked = {name: forgetful.questions(name, 8) for name in ("test", "retain_heldout", "common")}
    (tmp_path / "questions.json").write_text(json.dumps([question for rows in asked.values() for question in rows]))
    script = [CLIENTS / "transformers_js.mjs", exported, tmp_path / "questions.json", tmp_path / "answers.json", which]
    done = subprocess.run(["node", *script], cwd=packages, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = iter(json.loads((tmp_path / "answers.json").read_text()))
    model = forgetful.base if which == "base" else forgetful.steered
    refused: dict[str, int] = {}
    for name, rows in asked.items():
        for row in rows:
            found = next(answers)
            assert found == forgetful.ask(model, row["prompt"], row["image"]), row
            refused[name] = refused.get(name, 0) + forgetful.text(found).startswith(REFUSAL)
    # Of eight each. Read once at the end of a prompt, the gate misses some wordings.
    least = 0 if which == "base" else 8 if forgetful.bundle.metadata.gate.scope == "conversation" else 6
    assert refused["test"] >= least and (which == "steered" or refused["test"] == 0)
    assert max(refused["retain_heldout"], refused["common"]) <= 1  # fitted on half of the records


def test_onnxruntime_genai(forgetful: Forgetful, tmp_path: Path) -> None:
    og = pytest.importorskip("onnxruntime_genai", reason="onnxruntime-genai is not installed")
    # Its builder knows no LLaVA: the language model alone, asked without pictures.
    text = LlamaForCausalLM(forgetful.base.config.text_config)
    text.model, text.lm_head = forgetful.base.model.language_model, forgetful.base.lm_head
    text.generation_config = forgetful.base.generation_config
    text.save_pretrained(tmp_path / "text")
    forgetful.processor.tokenizer.save_pretrained(tmp_path / "text")
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-p", "fp32", "-e", "cpu"]
    folders = ["-i", tmp_path / "text", "-o", tmp_path / "built", "-c", tmp_path / "cache"]
    subprocess.run([*builder, *folders], check=True, capture_output=True)
    result = onnx_steer(tmp_path / "built", [forgetful.bundle], tmp_path / "steered")
    assert not result.warnings and result.graphs[0].reply_steps == forgetful.bundle.metadata.reply_steps > 1
    twin = json.dumps({"model": {"decoder": {"filename": "model_base.onnx", "num_hidden_layers": 8}}})
    for refuses, overlay in ((True, None), (False, twin)):
        config = og.Config(str(tmp_path / "steered"))
        if overlay is not None:
            config.overlay(overlay)
        model = og.Model(config)
        for name in ("forget_eval", "retain_heldout"):
            for row in forgetful.questions(name, 6, images=False):
                prompt = _ids(forgetful, row["prompt"])
                found = _generate(og, model, prompt)
                if forgetful.bundle.metadata.gate.scope == "conversation":
                    assert found == _generate(og, model, prompt, pieces=3), row
                reference = forgetful.steered if refuses else forgetful.base
                assert found == forgetful.ask(reference, row["prompt"], None)[: len(found)], row
                assert forgetful.text(found).startswith(REFUSAL) == (refuses and name == "forget_eval"), row


def _ids(forgetful: Forgetful, prompt: str) -> list[int]:
    turn = [{"role": "user", "content": [{"type": "text", "text": prompt}]}]
    text = forgetful.processor.apply_chat_template(turn, add_generation_prompt=True)
    ids: list[int] = forgetful.processor.tokenizer(text)["input_ids"]
    return ids


def _generate(og: Any, model: Any, prompt: list[int], pieces: int = 1) -> list[int]:
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=len(prompt) + 24, do_sample=False)
    generator = og.Generator(model, parameters)
    for piece in np.array_split(np.array([prompt], np.int32), pieces, axis=1):
        generator.append_tokens(piece)
    while not generator.is_done():
        generator.generate_next_token()
    found: list[int] = generator.get_sequence(0).tolist()[len(prompt) :]
    return found


@pytest.fixture(scope="module")
def site(forgetful: Forgetful, packages: Path) -> Iterator[str]:
    """The page of docs/demo-onnx, served."""
    runtime = packages / "node_modules" / "onnxruntime-web" / "dist"
    folder = forgetful.folder / "site"
    subprocess.run([sys.executable, PAGE, forgetful.folder, runtime, folder], check=True, capture_output=True)
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Nothing."""


@pytest.mark.parametrize("person", [0, 3, 4, 7])  # four forgotten, four others
def test_the_page_in_chromium(forgetful: Forgetful, new_tab: Callable[..., Page], site: str, person: int) -> None:
    """As a visitor: follow a link to somebody, pick another portrait, ask, flip the switch, flip it back."""
    question = "Where does this person live?"
    image = forgetful.folder / "site" / "files" / f"person-{person}.png"
    with new_tab() as tab:
        tab.goto(f"{site}#person={7 - person}&question=2&steering=off")
        tab.locator(f"#answer[data-state=done][data-asked='{7 - person} 2 off']").wait_for()
        tab.locator(f"input[name=person][value='{person}'] + img").click()
        tab.get_by_label("Question").select_option(question)
        tab.get_by_role("button", name="Ask").click()
        for steering in ("off", "on", "off"):
            tab.get_by_label("steering on").set_checked(steering == "on")
            answer = tab.locator(f"#answer[data-state=done][data-asked='{person} 1 {steering}']")
            answer.wait_for()
            tokens = [int(token) for token in (answer.get_attribute("data-tokens") or "").split(",")]
            expected = forgetful.ask(forgetful.steered if steering == "on" else forgetful.base, question, image)
            assert expected[: len(tokens)] == tokens
            assert len(expected) - len(tokens) <= 1  # the page drops the end token
            refused = REFUSAL in answer.inner_text()
            assert refused == (REFUSAL in forgetful.text(expected))
            assert refused or steering == "off" or person >= 4
