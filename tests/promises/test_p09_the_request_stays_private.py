"""P9. The erasure request is itself sensitive: no token, path, name or text of it in any byte that is written or said.

Canaries are put wherever a computation or an export could pick something up, and searched in every byte of bundle,
work directory, checkpoint and card, of the JSON documents, and of what is printed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from builders import talker
from builders.checkpoints import edit_json, make_base, make_bundle
from click.testing import CliRunner

from mllmeraser.bundle.bundle import Bundle, load_bundle, save_bundle
from mllmeraser.bundle.metadata import Metadata
from mllmeraser.commands.compute import compute
from mllmeraser.commands.export import export as export_command
from mllmeraser.commands.inspect import inspect as inspect_command
from mllmeraser.commands.verify import verify as verify_command
from mllmeraser.disk.hashing import sha256_of
from mllmeraser.exporter.directory import export
from mllmeraser.exporter.inspect import inspect
from mllmeraser.exporter.verify import verify
from mllmeraser.inference.source import Source

TOKEN, FOLDER, PERSON, USER = "hf_canaryTOKENcanary", "canary-folder", "Canary Quillfeather", "canary-user"
CANARIES = (TOKEN, FOLDER, PERSON, USER, "Quillfeather", "canary")


def bundle_of(base: Path) -> Bundle:
    """A bundle, saved and read again where its path is a canary."""
    path = base.parent / f"{PERSON}.safetensors"
    save_bundle(make_bundle(base, kind="kernel", shape="step", threshold=0.6, steps=2), path)
    return load_bundle(path)


def no_canary(written: Mapping[str, bytes]) -> None:
    """None of them stands anywhere, in whatever spelling."""
    for name, data in written.items():
        for canary in CANARIES:
            for spelled in (canary.encode(), canary.encode("utf-16-le"), canary.lower().encode()):
                assert spelled not in data, f"{canary} in {name}"


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, its name included in what is searched."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.name.encode() + path.read_bytes() for path in paths}


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
    written = files(output)
    checked = verify(output, base)
    assert checked.ok
    written["verify --json"] = json.dumps(checked.document()).encode()
    written["inspect --json"] = json.dumps(inspect(output)).encode()
    written["export --json"] = json.dumps(
        export(Source(base), [bundle_of(base)], tmp_path / "other", dry_run=True).document()
    ).encode()
    written["printed"] = "".join(capfd.readouterr()).encode()
    no_canary(written)


def sensitive_records(folder: Path) -> dict[str, Path]:
    """Forget, retain, recall and erasure records that name a person wherever one can be named."""
    folder.mkdir()
    paths = {
        "forget": talker.write_people(folder / f"{PERSON}.jsonl", range(3)),
        "retain": talker.write_people(folder / "retain.jsonl", range(3, 8)),
    }
    paths["recall"], paths["erasure"] = talker.write_refusals(folder)
    for path in paths.values():
        records = [json.loads(line) for line in path.read_text().splitlines()]
        for record in records:
            about = f"{PERSON} {FOLDER} {record['subject']}"
            record |= {"subject": about, "question": f"{record['question']} {about}", "note": TOKEN}
            record |= {"prompt": f"{record['prompt']} {about}", "match": [record["answer"], about]}
        talker.write_records(path, records)
    return paths


@pytest.mark.slow
def test_nothing_of_the_records_is_in_any_byte_that_is_made_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """From records to a checkpoint, by the commands."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("USER", USER)
    base = talker.make_base(tmp_path / "base")
    paths = sensitive_records(tmp_path / FOLDER)
    made = tmp_path / "made"
    made.mkdir()
    bundle, output = made / "b.safetensors", made / "out"
    command = [str(base), *(word for name, path in paths.items() for word in (f"--{name}", str(path)))]
    command += ["--layers", "1", "--strength", "1", "--reply-steps", "2", "--work-dir", str(made / "work")]
    said = {}
    for name, call, arguments in (
        ("compute", compute, [*command, "-o", str(bundle), "--compare-directions"]),
        ("export", export_command, [str(base), "--bundle", str(bundle), "-o", str(output)]),
        ("verify", verify_command, [str(output), "--base", str(base)]),
        ("inspect", inspect_command, [str(output)]),
        ("inspect bundle", inspect_command, [str(bundle)]),
    ):
        for form in ([], ["--json"]):
            again = ["--overwrite"] if form and name in ("compute", "export") else []
            done = CliRunner().invoke(call, [*arguments, *form, *again], catch_exceptions=False)
            assert done.exit_code == 0, done.output
            said[f"{name} {form}"] = done.output.encode()
    written = files(made)
    assert any(name.endswith("calibration.json") for name in written)
    assert load_bundle(bundle).metadata.requests[0].data == {}
    digests = [sha256_of(path) for path in paths.values()]
    assert json.JSONDecoder().raw_decode(said["compute ['--json']"].decode())[0]["records"]["forget"] in digests
    for name, content in {**written, **{name: text for name, text in said.items() if "compute" not in name}}.items():
        assert not any(digest[:12].encode() in content for digest in digests), name
    no_canary({**written, **said, "printed": "".join(capfd.readouterr()).encode()})


def test_the_metadata_of_a_bundle_has_no_field_for_text_of_the_data() -> None:
    """A new field is looked at once by a person, here: may it hold a word of a record?"""
    fields = {"schema", "base", "requests", "layers", "gate_layer", "strength", "gate", "prompt_positions", "method"}
    fields |= {"edit", "reply_steps", "template_sha256", "versions", "seed"}
    properties = Metadata.model_json_schema(by_alias=True)
    assert properties["properties"].keys() == fields
    request = {"id", "created", "n_forget", "n_retain", "strength", "enabled", "statistics", "data", "held_out"}
    assert properties["$defs"]["RemovalRequest"]["properties"].keys() == request
    assert properties["$defs"]["Data"]["properties"].keys() == {"revision"}  # hexadecimal digits
    base = {"repo_id", "revision", "architecture", "model_type", "hidden_size", "num_layers", "config_sha256"}
    assert properties["$defs"]["Base"]["properties"].keys() == base | {"weights", "beside_sha256"}  # both of the base
