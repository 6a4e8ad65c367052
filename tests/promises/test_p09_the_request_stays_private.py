"""P9. The erasure request is itself sensitive: no token, path, name or text of it in any byte that is written or said.

Canaries are put wherever an export could pick something up, and searched in every byte of the directory, of the JSON
documents, and of what is printed.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkpoints import edit_json, make_base, make_bundle

from mllmeraser.exporter.directory import export
from mllmeraser.exporter.inspect import inspect
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.source import Source
from mllmeraser.steering.bundle import Bundle, load_bundle, save_bundle

TOKEN, FOLDER, PERSON, USER = "hf_canaryTOKENcanary", "canary-folder", "Canary Quillfeather", "canary-user"
CANARIES = (TOKEN, FOLDER, PERSON, USER, "Quillfeather", "canary")


def bundle_of(base: Path) -> Bundle:
    """A bundle, saved and read again where its path is a canary; it is built by hand, without records."""
    path = base.parent / f"{PERSON}.safetensors"
    save_bundle(make_bundle(base, kind="kernel", shape="step", threshold=0.6, steps=2), path)
    return load_bundle(path)


def test_nothing_of_it_is_in_any_byte_of_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("USER", USER)
    (tmp_path / FOLDER).mkdir()
    base = make_base(tmp_path / FOLDER / PERSON)
    edit_json(base / "tokenizer_config.json", name_or_path=f"/home/{USER}/models/{PERSON}")
    edit_json(base / "preprocessor_config.json", _name_or_path=f"C:\\Users\\{USER}\\models")
    edit_json(base / "config.json", _name_or_path=str(base), _commit_hash=PERSON)
    (base / f"{PERSON}.json").write_text(PERSON)
    (base / "README.md").write_text(f"---\nlicense: mit\nmodel-index:\n- name: {PERSON}\n---\n{PERSON} {FOLDER}\n")
    (base / "trainer_state.json").write_text(f'{{"token": "{TOKEN}"}}')
    output = tmp_path / "out"
    export(Source(base), [bundle_of(base)], output)
    written = {path.name: path.name.encode() + path.read_bytes() for path in output.iterdir()}
    checked = verify(output, base)
    assert checked.ok
    written["verify --json"] = json.dumps(checked.document()).encode()
    written["inspect --json"] = json.dumps(inspect(output)).encode()
    written["export --json"] = json.dumps(
        export(Source(base), [bundle_of(base)], tmp_path / "other", dry_run=True).document()
    ).encode()
    written["printed"] = "".join(capfd.readouterr()).encode()
    for name, data in written.items():
        for canary in CANARIES:
            for spelled in (canary.encode(), canary.encode("utf-16-le"), canary.lower().encode()):
                assert spelled not in data, f"{canary} in {name}"


def test_the_metadata_of_a_bundle_has_no_field_for_text_of_the_data() -> None:
    """A new field is looked at once by a person, here: may it hold a word of a record?"""
    fields = {"schema", "base", "requests", "layers", "gate_layer", "strength", "gate", "prompt_positions", "method"}
    fields |= {"reply_steps", "template_sha256", "versions", "seed"}
    properties = Bundle.model_fields["metadata"].annotation.model_json_schema(by_alias=True)
    assert properties["properties"].keys() == fields
    request = {"id", "created", "n_forget", "n_retain", "strength", "enabled", "statistics"}
    assert properties["$defs"]["Request"]["properties"].keys() == request
