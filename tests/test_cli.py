"""The commands as a person or a program meets them: help, documents, exit codes, and one line for what goes wrong."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import click
import pytest
import torch
from builders import checkpoints, talker
from builders.command_line import Run, document, mllmeraser

from mllmeraser import cli
from mllmeraser.bundle.bundle import load_bundle, save_bundle
from mllmeraser.errors import MllmEraserError
from mllmeraser.evaluation import protocols
from mllmeraser.evaluation.attacks.catalogue import ATTACKS
from mllmeraser.modeling_patches.format_mllmeraser import SteeringError
from mllmeraser.removals import ledger as ledgers
from mllmeraser.steering import compute as computing

COMMANDS = sorted(cli.cli.commands)
# Each command as its words; a group's own commands, too.
CALLS = [
    (name, *inner)
    for name, command in sorted(cli.cli.commands.items())
    for inner in ([(each,) for each in sorted(command.commands)] if isinstance(command, click.Group) else [()])
]
FIXED = ["--layers=1", "--gate-layer=own", "--gate-shape=step:0.5", "--bandwidth=1", "--strength=1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base, records, bundle and export, all of them good."""
    folder = tmp_path_factory.mktemp("cli")
    talker.make_base(folder / "base")
    talker.write_people(folder / "forget.jsonl", range(3))
    talker.write_people(folder / "retain.jsonl", range(3, 7))
    talker.write_refusals(folder)
    save_bundle(checkpoints.make_bundle(folder / "base"), folder / "b.safetensors")
    return folder


def computation(made: Path, output: Path, *more: object) -> list[object]:
    """A call of `compute` that works."""
    records = ["--forget", made / "forget.jsonl", "--retain", made / "retain.jsonl"]
    pairs = ["--recall", made / "recall.jsonl", "--erasure", made / "erasure.jsonl"]
    return ["compute", made / "base", *records, *pairs, *FIXED, "-o", output, *more]


# ---------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_help(run: Run, call: tuple[str, ...], flag: str) -> None:
    result = run(*call, flag)
    assert result.code == 0
    assert result.stderr == ""
    for option in ("--json", "--quiet", "--debug"):
        assert option in result.stdout


def test_the_help_names_every_command_and_exit_code(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    for command in COMMANDS:
        assert f"\n│ {command} " in result.stdout
    for code in ("0 done", "1 failed", "2 wrong usage", "3 verification failed", "4 a quality gate", "130"):
        assert f"\n {code}" in result.stdout.split("Exit codes:")[1]


def test_options_that_replace_or_expose_stand_apart(run: Run) -> None:
    for command in ("compute", "export", "evaluate", "demo"):
        usual, careful = run(command, "--help").stdout.split("Careful")
        assert "--overwrite" in careful
        assert "--overwrite" not in usual


def test_every_choice_of_a_computation_is_an_option_of_compute_and_of_export(run: Run) -> None:
    for command in ("compute", "export"):
        text = run(command, "--help").stdout
        for name in computing.Recipe.model_fields:
            assert re.search(f"--{name.replace('_', '-')}[ /]", text), name


def test_help_needs_no_torch() -> None:
    """It takes seconds to import."""
    code = "import sys; from mllmeraser import cli; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_script_and_the_module_are_the_same_program() -> None:
    script = Path(sys.executable).parent / "mllmeraser"
    done = subprocess.run([script, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == mllmeraser("--version").stdout


# ----------------------------------------------------------------------------------------------------------- documents


def test_compute_writes_a_bundle_and_one_document(run: Run, made: Path, tmp_path: Path) -> None:
    output = tmp_path / "b.safetensors"
    result = run(*computation(made, output, "--json", "--request-id", "r7"))
    assert result.code == 0
    found = document(result)
    assert (found["output"], found["request"], found["layers"], found["strength"]) == (str(output), "r7", [1], 1.0)
    assert load_bundle(output).metadata.requests[0].id == "r7"
    assert result.stderr.splitlines()[-1] == f"next: mllmeraser export {made / 'base'} --bundle {output} -o DIRECTORY"


def test_export_verify_inspect_and_evaluate_print_one_document_each(run: Run, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported = run("export", made / "base", "--bundle", made / "b.safetensors", "-o", out, "--json")
    assert document(exported)["output"] == str(out)
    verified = run("verify", out, "--base", made / "base", "--json")
    assert document(verified)["ok"] is True
    for path, kind in ((out, "checkpoint"), (made / "b.safetensors", "bundle")):
        assert document(run("inspect", path, "--json"))["kind"] == kind
    models = [f"base={made / 'base'}", f"steered={out}"]
    results = tmp_path / "results.json"
    asked = run("evaluate", *models, "--data", f"people={made / 'forget.jsonl'}", "-o", results, "--json")
    rows = document(asked)["rows"]
    assert isinstance(rows, list)
    assert {(row["model"], row["modality"], row["n"]) for row in rows} == {
        (model, modality, 6) for model in ("base", "steered") for modality in ("image_text", "text")
    }
    assert json.loads(results.read_text()) == document(asked)
    assert [result.code for result in (exported, verified, asked)] == [0, 0, 0]


def test_matrices_of_the_authors_are_imported_exported_and_verified(run: Run, made: Path, tmp_path: Path) -> None:
    file, bundle, out = tmp_path / "w.pt", tmp_path / "b.safetensors", tmp_path / "out"
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    torch.save({2: torch.outer(*vectors), 3: torch.zeros(32, 32)}, file)
    call = ["import-official", file, "--base", made / "base", "-o", bundle, "--request-id", "r9"]
    found = document(result := run(*call, "--json"))
    assert result.code == 0
    assert (found["output"], found["request"], found["layers"], found["skipped"]) == (str(bundle), "r9", [2], [3])
    assert (found["strength"], found["dense_bytes"], found["tensor_bytes"]) == (0.25, 4096, 256)
    assert result.stderr.splitlines()[-1] == f"next: mllmeraser export {made / 'base'} --bundle {bundle} -o DIRECTORY"
    again = run(*call)
    assert (again.code, "--overwrite" in again.error) == (2, True)
    assert "request r9: of records that are not known, imported" in run("inspect", bundle).stdout
    assert run("export", made / "base", "--bundle", bundle, "-o", out).code == 0
    assert run("verify", out, "--base", made / "base").code == 0
    assert "not measured" in (out / "README.md").read_text()


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_what_is_signed_verifies_with_the_public_key_until_it_changes(run: Run, made: Path, tmp_path: Path) -> None:
    pytest.importorskip("model_signing", reason="the extra 'sign' is not installed")
    from builders.signing_keys import make_key

    out, (private, public) = tmp_path / "out", make_key(tmp_path)
    assert run("export", made / "base", "--bundle", made / "b.safetensors", "-o", out, "--link", "copy").code == 0
    signed = run("sign", out, "--private-key", private, "--json")
    assert (signed.code, document(signed)["output"]) == (0, str(out / "model.sig"))
    assert signed.stderr.splitlines()[-1] == f"next: mllmeraser verify {out} --public-key FILE"
    verified = run("verify", out, "--public-key", public)
    assert verified.code == 0
    assert "ok     signature: " in verified.stdout
    (out / "README.md").write_text("another card")
    changed = run("verify", out, "--public-key", public, "--json")
    assert changed.code == 3
    assert "signature" in changed.stderr.splitlines()[-1]
    for call in (["sign", out, "--private-key"], ["verify", out, "--public-key"]):
        result = run(*call, tmp_path / "none")
        assert result.code == 2
        assert result.error.startswith(f"{tmp_path / 'none'}: no such file")


def test_interference_is_a_matrix_or_one_document(run: Run, made: Path, tmp_path: Path) -> None:
    save_bundle(checkpoints.make_bundle(made / "base", "r2", seed=4), tmp_path / "b2.safetensors")
    bundles = ["--bundle", made / "b.safetensors", "--bundle", tmp_path / "b2.safetensors"]
    sets = ["--forget", made / "forget.jsonl", "--forget", made / "retain.jsonl"]
    found = document(result := run("interference", made / "base", *bundles, *sets, "--json"))
    assert (result.code, found["requests"]) == (0, ["r1", "r2"])
    cells = found["cells"]
    assert isinstance(cells, list)
    assert [(c["gate_of"], c["forget_set_of"], c["n"]) for c in cells] == [
        ("r1", "r1", 12),
        ("r1", "r2", 16),
        ("r2", "r1", 12),
        ("r2", "r2", 16),
    ]
    matrix = run("interference", made / "base", *bundles, *sets)
    assert matrix.stdout.splitlines()[0].split() == ["gate", "of", "r1", "r2"]
    assert matrix.stderr.splitlines()[-1].startswith(f"next: mllmeraser export {made / 'base'} --bundle ")
    wrong = run("interference", made / "base", *bundles, *sets[:2])
    assert (wrong.code, wrong.error) == (2, "give one --forget for each --bundle, in the same order")


@pytest.mark.slow
def test_attacks_and_activations_go_from_evaluate_into_a_report(
    run: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every attack through the commands; of the records and their folder not a word in results or page."""
    monkeypatch.setattr(protocols, "MAX_NEW_TOKENS", 8)  # what is said does not matter here
    assert run("export", made / "base", "--bundle", made / "b.safetensors", "-o", tmp_path / "out").code == 0
    data = ["--data", f"forget={made / 'forget.jsonl'}", "--data", f"kept={made / 'retain.jsonl'}"]
    asked = ["evaluate", f"base={made / 'base'}", f"steered={tmp_path / 'out'}", *data, "--batch-size", 256]
    results, page = tmp_path / "r.json", tmp_path / "report.html"
    result = run(*asked, "--attacks", "--attack-set", "forget", "--activations", "-o", results)
    assert result.code == 0, result.stderr
    assert "under attack, right answers given away in %:" in result.stdout
    assert "load the native class" in result.stderr
    assert result.stderr.splitlines()[-1] == f"next: mllmeraser report {results} -o report.html"
    found = json.loads(results.read_text())
    assert [(worst["model"], worst["set"]) for worst in found["attacks_worst"]] == [
        ("base", "forget"),
        ("steered", "forget"),
    ]
    names = {entry["attack"] for entry in found["attacks"]} | {entry["attack"] for entry in found["attacks_not_run"]}
    assert names == {each.name for each in ATTACKS}
    assert {entry["attack"] for entry in found["attacks"] if entry["set"] == "kept"} <= {
        "kept-after-forgotten",
        "kept-naming-forgotten",
    }
    assert [(m["model"], len(m["points"]), len(m["points"][0]["x"])) for m in found["activations"]] == [
        ("steered", 4, 12)
    ]
    made_page = document(run("report", results, "-o", page, "--figures", tmp_path / "figures", "--json"))
    assert made_page["output"] == str(page) and "“steered”" in str(made_page["verdict"])
    assert len(list((tmp_path / "figures").glob("*.svg"))) == len(list((tmp_path / "figures").glob("*.png"))) > 4
    texts = [
        results.read_text().replace(str(results), ""),
        page.read_text(),
        run("report", results, "--format", "md").stdout,
    ]
    for text in texts:
        assert (
            str(tmp_path) not in text and str(made) not in text and "subject-" not in text and "person zero" not in text
        )
    assert run("report", results).code == 2
    wrong = run(*asked, "--attack-set", "nobody")
    assert (wrong.code, wrong.error) == (2, "--attack-set nobody: no such set; one of forget, kept")


@pytest.mark.slow
def test_in_a_process_of_its_own_stdout_holds_the_document_alone(made: Path, tmp_path: Path) -> None:
    result = mllmeraser(*computation(made, tmp_path / "b.safetensors", "--json"))
    assert result.code == 0
    document(result)
    assert result.stderr.splitlines()[-1].startswith("next: mllmeraser export ")
    assert "Traceback" not in result.stderr and "Warning" not in result.stderr


def test_export_computes_first_when_it_is_given_records(run: Run, made: Path, tmp_path: Path) -> None:
    result = run("export", made / "base", *computation(made, tmp_path / "out", "--json")[2:])
    assert result.code == 0
    assert document(result)["requests"] == ["request-1"]
    assert (tmp_path / "out" / "config.json").is_file()


def test_a_dry_run_prints_the_same_document_and_writes_nothing(run: Run, made: Path, tmp_path: Path) -> None:
    call = ["export", made / "base", "--bundle", made / "b.safetensors", "-o", tmp_path / "out", "--json"]
    dry = document(run(*call, "--dry-run"))
    assert not any(tmp_path.iterdir())
    assert {**dry, "dry_run": False} == document(run(*call))


def test_without_json_a_person_reads_lines_and_quiet_leaves_stderr_empty(run: Run, made: Path, tmp_path: Path) -> None:
    loud = run("inspect", made / "b.safetensors")
    assert loud.code == 0
    with pytest.raises(json.JSONDecodeError):
        json.loads(loud.stdout)
    quiet = run(*computation(made, tmp_path / "b.safetensors", "--quiet", "--json"))
    assert (quiet.code, quiet.stderr) == (0, "")
    document(quiet)


def test_options_go_before_the_recipe_file(run: Run, made: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('strength = 3\nreply_steps = 2\nlayers = "2"\n')
    call = computation(made, tmp_path / "b.safetensors", "--recipe", tmp_path / "recipe.toml", "--json")
    found = document(run(*call))  # --strength=1 and --layers=1 are among the options
    assert (found["strength"], found["layers"], found["reply_steps"]) == (1.0, [1], 2)


def test_a_work_directory_is_filled(run: Run, made: Path, tmp_path: Path) -> None:
    assert run(*computation(made, tmp_path / "b.safetensors", "--work-dir", tmp_path / "work")).code == 0
    assert any((tmp_path / "work").iterdir())


# ----------------------------------------------------------------------------------------------------------- bad input


def bad_records(folder: Path) -> list[tuple[str, str]]:
    """Files that are no records, and what is said of them."""
    good = json.dumps({"subject": "s", "question": "q", "answer": "a", "task": "generation"})
    contents = {
        "empty": ("", "holds no record; every line must be one JSON object (docs/records.md)"),
        "malformed": (f"{good}\n{{", "line 2: Invalid JSON"),
        "key": (f'{good}\n{{"subject": "s"}}', "line 2: question: Field required"),
        "image": (good[:-1] + ', "image": "none.png"}', "line 1: image: none.png does not exist beside the file"),
    }
    found = [("missing", "no such file; give a JSON Lines file of records (docs/records.md)")]
    for name, (content, message) in contents.items():
        (folder / f"{name}.jsonl").write_text(content)
        found.append((name, message))
    return found


@pytest.mark.parametrize("option", ["--forget", "--retain", "--recall", "--erasure"])
def test_records_that_cannot_be_read_are_one_line_whichever_they_are(
    run: Run, made: Path, tmp_path: Path, option: str
) -> None:
    for name, message in bad_records(tmp_path):
        path = tmp_path / f"{name}.jsonl"
        before = set(tmp_path.iterdir())
        result = run(*computation(made, tmp_path / "b.safetensors", option, path))
        assert result.code == 2
        assert result.error.startswith(f"{path}")
        assert message in result.error
        assert set(tmp_path.iterdir()) == before


def test_evaluate_names_the_records_it_cannot_read(run: Run, made: Path, tmp_path: Path) -> None:
    for name, message in bad_records(tmp_path):
        result = run("evaluate", made / "base", "--data", tmp_path / f"{name}.jsonl", "-o", tmp_path / "r.json")
        assert result.code == 2
        assert message in result.error
        assert not (tmp_path / "r.json").exists()


def damaged_base(folder: Path, damage: str) -> Path:
    base = talker.make_base(folder / "bad")
    if damage == "config":
        (base / "config.json").unlink()
    elif damage == "no json":
        (base / "config.json").write_text("{")
    elif damage == "family":
        checkpoints.edit_json(base / "config.json", model_type="parrot")
    elif damage == "truncated":
        weights = base / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:4000])
    else:
        (base / "model.safetensors").write_bytes(b"these are no weights at all")
    return base


DAMAGES = {
    "config": "no config.json; give the directory of a Hugging Face checkpoint",
    "no json": "not valid JSON (",
    "family": "parrot",
    "truncated": "safetensors",
    "foreign": "safetensors",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_base_that_cannot_be_used_is_one_line_to_compute_and_export(
    run: Run, made: Path, tmp_path: Path, damage: str
) -> None:
    base = damaged_base(tmp_path, damage)
    call = computation(made, tmp_path / "b.safetensors")
    call[1] = base
    computed = run(*call)
    exported = run("export", base, "--bundle", made / "b.safetensors", "-o", tmp_path / "out")
    for result in (computed, exported):
        assert result.code == 2
        assert str(base) in result.error
    assert DAMAGES[damage] in exported.error
    assert {path.name for path in tmp_path.iterdir()} == {"bad"}


def test_a_base_that_is_nowhere_is_one_line(run: Run, made: Path, tmp_path: Path) -> None:
    for command in (["export", "--bundle", made / "b.safetensors"], ["verify", tmp_path, "--base"]):
        result = run(*command, tmp_path / "none", *(["-o", tmp_path / "out"] if command[0] == "export" else []))
        assert result.code == 2
        assert result.error.startswith(f"{tmp_path / 'none'}: no such directory, and not a Hub id")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; make a bundle with: mllmeraser compute BASE"),
        (b"hello", "not a readable safetensors file"),
        ("half", "not a readable safetensors file"),
        ("weights", "a safetensors file, but not a steering bundle"),
    ],
)
def test_a_bundle_that_is_none_is_one_line_to_export_and_inspect(
    run: Run, made: Path, tmp_path: Path, content: bytes | str | None, message: str
) -> None:
    path = tmp_path / "b.safetensors"
    if content == "half":
        path.write_bytes((made / "b.safetensors").read_bytes()[:900])
    elif content == "weights":
        path.write_bytes((made / "base" / "model.safetensors").read_bytes())
    elif isinstance(content, bytes):
        path.write_bytes(content)
    exported = run("export", made / "base", "--bundle", path, "-o", tmp_path / "out")
    assert (exported.code, exported.error.startswith(f"{path}: {message}")) == (2, True)
    inspected = run("inspect", path)
    assert inspected.code == 2
    assert str(path) in inspected.error
    assert not (tmp_path / "out").exists()


def test_a_target_that_is_not_empty_is_refused_before_anything_is_computed(
    run: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*_: object, **__: object) -> None:
        raise AssertionError("computed before the target was looked at")

    monkeypatch.setattr(computing, "compute", too_late)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("of somebody")
    (tmp_path / "b.safetensors").write_text("precious")
    results = [
        run(*computation(made, tmp_path / "b.safetensors")),
        run("export", made / "base", "--bundle", made / "b.safetensors", "-o", tmp_path / "out"),
        run("export", made / "base", *computation(made, tmp_path / "out")[2:]),
        run("demo", tmp_path / "out"),
        run("evaluate", made / "base", "--data", made / "forget.jsonl", "-o", tmp_path / "b.safetensors"),
    ]
    for result in results:
        assert result.code == 2
        assert "--overwrite" in result.error
    assert checkpoints.contents(tmp_path) == {"b.safetensors": b"precious", "out/precious": b"of somebody"}


def test_overwrite_replaces_a_bundle_and_a_directory(run: Run, made: Path, tmp_path: Path) -> None:
    (tmp_path / "b.safetensors").write_text("old")
    assert run(*computation(made, tmp_path / "b.safetensors", "--overwrite")).code == 0
    load_bundle(tmp_path / "b.safetensors")
    export = ["export", made / "base", "--bundle", made / "b.safetensors", "-o", tmp_path / "out"]
    assert run(*export).code == 0
    assert run(*export).code == 2
    assert run(*export, "--overwrite").code == 0
    (tmp_path / "out" / "mine").write_text("old")
    refused = run(*export, "--overwrite")
    assert refused.code == 2
    assert "holds mine, which mllmeraser did not write" in refused.error
    assert (tmp_path / "out" / "mine").exists()


def test_a_folder_that_is_not_there_is_one_line(run: Run, made: Path, tmp_path: Path) -> None:
    for call in (
        computation(made, tmp_path / "none" / "b.safetensors"),
        ["export", made / "base", "--bundle", made / "b.safetensors", "-o", tmp_path / "none" / "out"],
        ["demo", tmp_path / "none" / "out"],
    ):
        result = run(*call)
        assert result.code == 2
        assert result.error.endswith(f"the folder {tmp_path / 'none'} does not exist; create it first")


def test_nobody_can_be_forgotten_and_kept(run: Run, made: Path, tmp_path: Path) -> None:
    result = run(*computation(made, tmp_path / "b.safetensors", "--retain", made / "forget.jsonl"))
    assert result.code == 2
    assert result.error.startswith("3 subject(s) stand in both the forget and the retain set, the first is 'subject-0'")
    assert not any(tmp_path.iterdir())


def test_a_model_that_does_not_refuse_misses_the_quality_gate(run: Run, made: Path, tmp_path: Path) -> None:
    call = computation(made, tmp_path / "b.safetensors")
    result = run(*[value for value in call if "recall" not in str(value) and "erasure" not in str(value)])
    assert result.code == 4
    assert result.error.startswith("the base refuses 0% of the ")
    assert "--recall and --erasure" in result.error
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--null-space=ratio:2", "--null-space: 'ratio:2' is not ratio:ρ"),
        ("--gate-shape=wave", "--gate-shape: 'wave' is not identity"),
        ("--layers=9", "layer 9: this base has 4 layers, 0 to 3"),
        ("--calibration-share=0.9", "--calibration-share: "),
        ("--recipe=none.toml", "none.toml: no such file"),
        ("--device=abacus", "--device abacus: "),
        ("--batch-size=0", "'0' is not auto or a number of prompts"),
        ("--batch-size=all", "'all' is not auto or a number of prompts"),
        ("--request-id=a person", "--request-id 'a person': "),
    ],
)
def test_an_option_that_cannot_be_used_is_one_line(
    run: Run, made: Path, tmp_path: Path, option: str, message: str
) -> None:
    result = run(*computation(made, tmp_path / "b.safetensors", option))
    assert result.code == 2
    assert message in result.error
    assert not any(tmp_path.iterdir())


def test_a_bundle_or_records_but_not_both(run: Run, made: Path, tmp_path: Path) -> None:
    for given in ([], ["--forget", made / "forget.jsonl"], [*computation(made, tmp_path / "o")[2:6], "--bundle", "b"]):
        result = run("export", made / "base", "-o", tmp_path / "out", *given)
        assert result.code == 2
        assert result.error == "give either --bundle (once or several times), or --forget and --retain"


@pytest.mark.parametrize("arguments", [["compute"], ["nonsense"], ["verify", "x", "--no-such-option"]])
def test_wrong_usage_is_exit_code_2_and_points_to_help(run: Run, arguments: Sequence[str]) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert "--help" in result.stderr
    assert result.stdout == ""


def test_a_broken_promise_is_exit_code_3_and_the_document_says_which(run: Run, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("export", made / "base", "--bundle", made / "b.safetensors", "-o", out, "--link", "copy").code == 0
    (out / "tokenizer.json").write_text("{}")
    result = run("verify", out, "--json")
    assert result.code == 3
    assert document(result)["ok"] is False
    assert result.stderr.splitlines()[-1].startswith(f"error: {out}: ")
    assert len(result.stderr.splitlines()) == 1


# --------------------------------------------------------------------------------------------- failures, interruptions


def stopping(error: BaseException) -> object:
    def stop(*_: object, **__: object) -> None:
        raise error

    return stop


def test_what_nobody_foresaw_is_a_fault_of_ours_with_a_report(
    run: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report holds no value of the command line, no message and no frame of others: all of them may name people."""
    (tmp_path / "reports").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "reports"))

    def fail(*_: object, **__: object) -> None:
        try:
            {}["Ada Keller"]
        except KeyError as error:
            raise RuntimeError("several\nlines about Ada Keller") from error

    monkeypatch.setattr(computing, "choose_pairs", fail)
    result = run(*computation(made, tmp_path / "Ada Keller.safetensors", "--request-id=Ada", "--seed", 1926))
    assert result.code == 1
    (report,) = (tmp_path / "reports").iterdir()
    assert result.error.startswith("this is a fault of mllmeraser (RuntimeError in ")
    assert f"{report} reports it" in result.error
    assert "please attach it to an issue" in result.error
    assert report.stat().st_mode & 0o777 == 0o600
    text = report.read_text()
    assert "command: compute --forget --retain" in text
    assert "--request-id" in text
    assert "builtins.RuntimeError" in text
    assert "builtins.KeyError" in text
    assert "steering/compute.py, line " in text
    assert f"transformers {version('transformers')}" in text
    for ours in ("Ada", "Keller", str(made), str(tmp_path), "1926", "several", "site-packages", "forget.jsonl"):
        assert ours not in text + result.error.replace(str(report), ""), ours
    assert [path.name for path in tmp_path.iterdir()] == ["reports"]


def test_the_report_of_a_fault_names_a_groups_command(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reports").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "reports"))
    monkeypatch.setattr(ledgers, "read_one", stopping(RuntimeError("x")))
    call = ["requests", "add", "Ada", "--received", "2026-01-05", "--name", "Ada Keller", "--ledger", tmp_path / "Ada"]
    assert run(*call).code == 1
    (report,) = (tmp_path / "reports").iterdir()
    assert "command: requests add --received --name --ledger\n" in report.read_text()
    assert "Ada" not in report.read_text()


def test_a_fault_is_said_though_no_report_can_be_written(
    run: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "mkstemp", stopping(OSError(errno.ENOSPC, "No space left on device")))
    monkeypatch.setattr("mllmeraser.api._read", stopping(RuntimeError("x")))
    result = run(*computation(made, tmp_path / "b.safetensors"))
    assert (result.code, result.error.startswith("this is a fault of mllmeraser (RuntimeError in ")) == (1, True)
    assert "no report could be written (No space left on device)" in result.error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "out"), "out: Permission denied; mend that"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; mend that"),
        (MemoryError(), "the memory ran out"),
        (SteeringError("layer 3 was skipped"), "layer 3 was skipped"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_user_or_a_machine_can_cause_is_no_fault_of_ours(
    run: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    monkeypatch.setattr(computing, "choose_pairs", stopping(error))
    result = run(*computation(made, tmp_path / "b.safetensors"))
    assert result.code == 1
    assert result.error.startswith(said)


def test_a_terminal_that_lacks_a_character_shows_another(made: Path, tmp_path: Path) -> None:
    """The work is done by then: the en dash of "layers 0–3" is not in Latin-1."""
    work = computation(made, tmp_path / "b.safetensors", "--layers=all", "--dry-run")
    call = [sys.executable, "-m", "mllmeraser.cli", *work]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    done = subprocess.run(list(map(str, call)), capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert b"may be layers 0?3" in done.stdout


def test_a_usage_error_clips_what_it_quotes(run: Run, made: Path, tmp_path: Path) -> None:
    result = run(*computation(made, tmp_path / "b.safetensors", "--dtype", "A" * 5000))
    assert result.code == 2
    assert "A" * 50 in result.error
    assert len(result.error) < 400


def test_two_layers_without_calibration_each_have_a_gate(run: Run, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "b.safetensors"
    call = [option for option in computation(made, out) if option not in FIXED]
    result = run(*call, "--layers", "2,3", "--calibration-share", 0, "--gate-shape", "step:0.5", "--json")
    assert (result.code, document(result)["layers"]) == (0, [2, 3])


def test_a_failure_that_was_foreseen_is_exit_code_1(
    run: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(computing, "choose_pairs", stopping(MllmEraserError("the disk is full; make room")))
    result = run(*computation(made, tmp_path / "b.safetensors"))
    assert (result.code, result.error) == (1, "the disk is full; make room")


@pytest.mark.parametrize("error", [RuntimeError("x"), MllmEraserError("x")], ids=["unforeseen", "foreseen"])
def test_debug_shows_the_traceback(
    run: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(computing, "choose_pairs", stopping(error))
    with pytest.raises(type(error), match=r"^x$"):
        run(*computation(made, tmp_path / "b.safetensors", "--debug"))


@pytest.mark.parametrize("quiet", [[], ["--quiet"]], ids=["loud", "quiet"])
def test_an_error_is_said_even_when_quiet(run: Run, made: Path, tmp_path: Path, quiet: list[str]) -> None:
    result = run("inspect", tmp_path / "none", *quiet)
    assert result.code == 2
    assert str(tmp_path / "none") in result.error


def test_an_interruption_is_exit_code_130_and_leaves_nothing(
    run: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(computing, "choose_pairs", stopping(KeyboardInterrupt()))
    for call in (
        computation(made, tmp_path / "b.safetensors"),
        ["export", made / "base", *computation(made, tmp_path / "out")[2:]],
    ):
        result = run(*call)
        assert (result.code, result.stdout, result.stderr.strip()) == (130, "", "interrupted")
        assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("case", ["weights", "gate"])
def test_in_a_process_of_its_own_an_error_is_one_line_too(made: Path, tmp_path: Path, case: str) -> None:
    """Whatever torch and transformers print by themselves."""
    call = computation(made, tmp_path / "b.safetensors")
    if case == "weights":
        call[1] = damaged_base(tmp_path, "truncated")
    else:
        call = [value for value in call if "recall" not in str(value) and "erasure" not in str(value)]
    result = mllmeraser(*call)
    assert result.code == (2 if case == "weights" else 4)
    assert result.error


@pytest.mark.parametrize(
    ("words", "completed"),
    [("ver", ["verify"]), ("compute --gate-sh", ["--gate-shape"]), ("export --link ", ["auto", "copy", "hard", "sym"])],
)
def test_the_shell_completes_commands_options_and_choices(
    words: str, completed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As ``docs/cli.md`` says to set it up."""
    monkeypatch.setenv("_MLLMERASER_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"mllmeraser {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" "))))
    with pytest.raises(SystemExit):
        cli.main()
    assert [line.split(",")[1] for line in capsys.readouterr().out.splitlines()] == completed
