"""The promises P1, P3, P5, P8 and P9 for directories of graphs; P7 is in ``test_refusals.py``."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders import graphs, tiny
from builders.checkpoints import contents, edit_json, make_base
from builders.every_stage import faults, whole_or_as_before
from builders.graphs import DECODER, TWIN

from mllmeraser.bundle.bundle import Bundle, load_bundle, save_bundle
from mllmeraser.exporter.base import read_base
from mllmeraser.exporter.inspect import inspect
from mllmeraser.exporter.onnx.api import onnx_steer, verify_onnx
from mllmeraser.exporter.onnx.client_files import client_files
from mllmeraser.inference.source import Source

TOKEN, FOLDER, PERSON, USER = "hf_canaryTOKENcanary", "canary-folder", "Canary Quillfeather", "canary-user"
STEER = """
import sys
from pathlib import Path
from mllmeraser.exporter.onnx.api import onnx_steer
from mllmeraser.bundle.bundle import load_bundle
onnx_steer(Path(sys.argv[1]), [load_bundle(Path(sys.argv[2]))], Path(sys.argv[3]), link=sys.argv[4])
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A kernel gate with steps along the reply."""
    part = tiny.steering(tiny.model("llava"), tiny.prompt("llava", 5, 8, 6, 7), kind="kernel", steps=3)
    save_bundle(graphs.bundle(part), tmp_path / f"{PERSON}.safetensors")
    return load_bundle(tmp_path / f"{PERSON}.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("job", ["onnx-steer", "onnx-export"])
def test_p1_kill_9_at_every_stage_leaves_a_whole_target_or_the_former_one(
    exported_bases: dict[str, Path], tmp_path: Path, job: str
) -> None:
    base = make_base(tmp_path / "base")
    (tmp_path / "graphs" / "onnx").mkdir(parents=True)
    for name in (DECODER, f"{DECODER}_data", "config.json"):
        shutil.copy(exported_bases["llava"] / name, tmp_path / "graphs" / name)
    whole_or_as_before(faults(base, "kill", job=job))


def test_p3_given_files_are_untouched_and_travel_byte_for_byte(
    exported_bases: dict[str, Path], bundle: Bundle, tmp_path: Path
) -> None:
    given = Path(shutil.copytree(exported_bases["llava"], tmp_path / "given"))
    before = contents(given)
    onnx_steer(given, [bundle], tmp_path / "out")
    assert contents(given) == before
    after = contents(tmp_path / "out")
    for name in (name for name in before if name.startswith("onnx/") and name != DECODER):
        assert after[name] == before[name], name
    assert after[TWIN] == before[DECODER] != after[DECODER]


def test_p5_a_flipped_bit_or_a_cut_anywhere_is_seen(
    exported_bases: dict[str, Path], bundle: Bundle, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    onnx_steer(exported_bases["llava"], [bundle], out)
    generator = random.Random(0)
    for name, whole in contents(out).items():
        cases = [whole[: generator.randrange(len(whole))]] if whole else []
        for place in generator.choices(range(len(whole)), k=3):
            broken = bytearray(whole)
            broken[place] ^= 1 << generator.randrange(8)
            cases.append(bytes(broken))
        for case in cases:
            (out / name).write_bytes(case)
            assert not verify_onnx(out).ok, name
        (out / name).unlink()
        assert not verify_onnx(out).ok, name
        (out / name).write_bytes(whole)
    assert verify_onnx(out).ok


def test_p8_the_same_bytes_in_another_process_place_and_time_zone(
    exported_bases: dict[str, Path], bundle: Bundle, tmp_path: Path
) -> None:
    save_bundle(bundle, tmp_path / "b.safetensors")
    found = []
    for seed, zone, link in (("1", "UTC", "hard"), ("2", "Asia/Tokyo", "copy")):
        folder = tmp_path / f"place{seed}"
        given = Path(shutil.copytree(exported_bases["llava"], folder / f"given{seed}"))
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone}
        command = [sys.executable, "-c", STEER, given, tmp_path / "b.safetensors", folder / "out", link]
        subprocess.run(command, check=True, cwd=folder, env=environment)
        found.append(contents(folder / "out"))
    assert found[0] == found[1]
    recorded = json.loads(found[0]["mllmeraser.json"])["bundles"][0]
    assert recorded == json.loads(bundle.metadata.model_dump_json(by_alias=True))


def test_p9_nothing_of_the_request_is_in_any_byte(
    exported_bases: dict[str, Path],
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("USER", USER)
    (tmp_path / FOLDER).mkdir()
    given = Path(shutil.copytree(exported_bases["llava"], tmp_path / FOLDER / PERSON))
    edit_json(given / "config.json", _name_or_path=f"/home/{USER}/{PERSON}")
    edit_json(given / "tokenizer_config.json", name_or_path=str(given))
    (given / "README.md").write_text(f"---\nlicense: mit\n---\n{PERSON} {FOLDER}\n")
    (given / "trainer_state.bin").write_text(TOKEN)
    result = onnx_steer(given, [bundle], tmp_path / "out")
    written = {name: name.encode() + data for name, data in contents(tmp_path / "out").items()}
    document = {**result.document(), "output": None}
    written["onnx-steer --json"] = json.dumps(document).encode()
    written["verify --json"] = json.dumps(verify_onnx(tmp_path / "out").document()).encode()
    written["inspect --json"] = json.dumps(inspect(tmp_path / "out")).encode()
    written["printed"] = "".join(capfd.readouterr()).encode()
    for name, data in written.items():
        for canary in (TOKEN, FOLDER, PERSON, USER, "Quillfeather", "canary"):
            for spelled in (canary.encode(), canary.encode("utf-16-le"), canary.lower().encode()):
                assert spelled not in data, f"{canary} in {name}"


def test_p9_an_export_drops_the_paths_of_the_base(tmp_path: Path) -> None:
    base = make_base(tmp_path / FOLDER)
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        edit_json(base / name, _name_or_path=f"/home/{USER}", name_or_path=f"/home/{USER}")
    for name, data in client_files(read_base(Source(base)), [], "fp32").items():
        assert USER.encode() not in data and FOLDER.encode() not in data, name
