"""What a report says, what it leaves out, and what it never says."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from builders import results
from PIL import Image

from mllmeraser.errors import InputError
from mllmeraser.judging.results_file import Row
from mllmeraser.report.figures import tradeoff
from mllmeraser.report.findings import read_findings
from mllmeraser.report.numbers import number, percent, pooled, seconds, size, told
from mllmeraser.report.page import page
from mllmeraser.report.report import Report, report


def _report(folder: Path, *documents: results.Document, **options: object) -> Report:
    return report(results.written(folder, *documents), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("forgotten", "kept", "answers", "others"),
    [
        (0.0, 1.0, "no longer answers", "as before"),
        (0.05, 0.99, "no longer answers", "as before"),
        (0.4, 0.96, "answers less", "at a small cost"),
        (0.9, 0.5, "still answers", "at a high cost"),
    ],
)
def test_the_heading_follows_the_numbers(
    tmp_path: Path, forgotten: float, kept: float, answers: str, others: str
) -> None:
    made = _report(tmp_path, results.evaluated(forgotten, kept), form="md").page.verdict
    asked = "about the forgotten in the wordings asked"
    assert made == f"“steered” {answers} {asked}, and answers everything else {others}"


@pytest.mark.parametrize(
    ("worst", "end"),
    [
        (0.0, "as before; all attacks together get almost no answer out of it"),
        (0.4, "as before; under attack it gives some of the answers away"),
        (0.8, "as before; under attack it gives most of the answers away"),
    ],
)
def test_the_heading_does_not_keep_an_attack_quiet(tmp_path: Path, worst: float, end: str) -> None:
    made = _report(tmp_path, results.evaluated(), results.attacked(worst), form="md")
    assert made.page.verdict.endswith(end)
    assert "in the wordings asked" not in made.page.verdict


def test_the_sentences_give_the_numbers_with_intervals(tmp_path: Path) -> None:
    first, second, third, last = _report(tmp_path, results.evaluated(), results.attacked(0.4), form="md").page.sentences
    assert first.startswith("“steered” answers 0 % (0–4.6) of the 80 questions about the forgotten (forget) right")
    assert "refuses 100 %" in first
    assert "“steered” answers 100 % (95.4–100) of the 80 other questions (retain) right" in second
    assert "have exactly the base's tokens" in second
    assert "the likeliest in 50 % of the questions, whatever it replies (“base”: 50 %)" in third
    assert last.startswith("All attacks together get 40 % of the answers about forget, the worst alone (prefill) 40 %")


@pytest.mark.parametrize(("again", "words"), [(0.0, "no figure lies more than a point apart"), (0.4, "Do not trust")])
def test_figures_that_were_made_twice_are_compared(tmp_path: Path, again: float, words: str) -> None:
    check = {"model": "base", "set": "forget", "n": 100, "accuracy": 0.0, "again": again, "same_replies": 1.0}
    document = results.evaluated() | {"cross_checks": [check]}
    assert words in _report(tmp_path, document, form="md").page.sentences[-1]


def test_kept_questions_under_attack_have_a_table(tmp_path: Path) -> None:
    made = _report(tmp_path, results.evaluated(), results.attacked(0.4), form="md")
    (section,) = (section for section in made.page.sections if section.name == "attacks")
    worst, kept = section.tables
    assert worst.columns[3:] == ["any attack", "beyond the reference", "plain", "worst", "by"]
    assert kept.columns[3:] == ["n", "right", "refused", "as the base"]
    assert kept.rows == [
        ["base", "retain", "kept-after-forgotten", "40", "100", "0", "100"],
        ["steered", "retain", "kept-after-forgotten", "40", "0", "100", "0"],
    ]


def test_attacks_with_the_files_in_hand_stand_apart_with_their_budgets(tmp_path: Path) -> None:
    made = _report(tmp_path, results.evaluated(), results.attacked(0.4), form="md")
    (section,) = (section for section in made.page.sections if section.name == "attacks")
    served, apart, _ = section.figures
    assert [row[0] for row in served.numbers.rows] == ["plain", "prefill", "option-logit"]
    assert apart.numbers.columns[-1] == "budget"
    assert apart.numbers.rows == [["fine-tuned", "40", "100", "0–100", "100", "0–100", "–", "50 steps"]]


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    made = _report(tmp_path, results.evaluated(), form="md")
    assert [section.name for section in made.page.sections] == ["tradeoff", "tasks", "provenance"]
    (tmp_path / "all").mkdir()
    whole = report(results.everything(tmp_path / "all"), form="md")
    names = [section.name for section in whole.page.sections]
    assert names == ["tradeoff", "activations", "gates", "cost", "tasks", "attacks", "provenance"]


def test_methods_alone_make_a_page(tmp_path: Path) -> None:
    made = _report(tmp_path, results.methods(), form="md")
    assert [section.name for section in made.page.sections] == ["tradeoff", "cost", "provenance"]
    numbers = made.page.sections[0].figures[0].numbers.rows
    assert numbers == [["GA", "70", "30", "2"], ["NPO", "50", "70", "1"]]
    (table,) = made.page.sections[0].tables
    assert table.rows == [["GA", "3, 1 failed", "70 ± 10.0", "30 ± 10.0"], ["NPO", "1", "50", "70"]]


def test_every_figure_has_its_numbers_as_a_table(tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text(json.dumps(results.calibration()))
    made = report(results.everything(tmp_path), calibration=tmp_path / "calibration.json")
    drawn = [figure for section in made.page.sections for figure in section.figures]
    names = [figure.name for figure in drawn]
    assert names == [
        "tradeoff",
        "replies",
        "activations-steered-before",
        "activations-steered-after",
        "gates-steered-r1-5",
        "cost-seconds",
        "cost-peak_memory_bytes",
        "cost-bytes_added",
        "calibration",
        "attacks-forget",
        "apart-forget",
        "probes-forget",
    ]
    for figure in drawn:
        assert figure.numbers.rows and figure.description
        assert made.text.count(f'<title id="figure-{names.index(figure.name)}-title">') == 1
    gate = drawn[names.index("gates-steered-r1-5")].numbers.rows
    assert gate == [["forget", "4", "0.70", "1.00", "1.05", "100"], ["retain", "4", "-0.10", "0.02", "0.10", "0"]]
    cells = drawn[names.index("calibration")].numbers.rows
    assert [row[:2] for row in cells] == [["3", "0.5"], ["3", "1"], ["5", "0.5"], ["5", "1"]]


def test_nothing_of_the_records_or_of_this_machine_reaches_a_page(tmp_path: Path) -> None:
    paths = results.everything(tmp_path)
    for form in ("html", "md", "json"):
        text = report(paths, form=form).text  # type: ignore[arg-type]
        assert results.CANARY not in text and "Quillfeather" not in text
        assert str(tmp_path) not in text


def test_samples_stand_side_by_side_only_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text(results.items())
    paths = results.written(tmp_path, results.evaluated())
    for form in ("html", "md", "json"):
        text = report(paths, form=form, items=tmp_path / "items.jsonl", include_samples=True).text  # type: ignore[arg-type]
        assert f"Where does {results.CANARY} live?" in text and "I cannot help" in text
    html = report(paths, items=tmp_path / "items.jsonl", include_samples=True).text
    assert "In &lt;Graz&gt; &amp; Linz." in html and "<Graz>" not in html
    found = read_findings(paths, items=tmp_path / "items.jsonl")
    assert page(found, include_samples=True).answers and not page(found).answers
    for given in ({"items": tmp_path / "items.jsonl"}, {"include_samples": True}):
        with pytest.raises(InputError, match="give both, or neither"):
            report(paths, **given)  # type: ignore[arg-type]


def test_the_json_form_holds_the_same_numbers(tmp_path: Path) -> None:
    document = json.loads(_report(tmp_path, results.evaluated(), results.gates(), form="json").text)
    assert document["schema"] == 1 and document["model"] == "steered"
    tables = {table["caption"]: table for section in document["sections"] for table in section["tables"]}
    assert tables["Forgotten and kept, in %"]["rows"] == [["base", "0", "100", "1"], ["steered", "100", "100", "1"]]
    assert "forget (about the forgotten)" in tables and "retain (about others)" in tables


def test_parts_and_what_is_not_judged_have_their_place(tmp_path: Path) -> None:
    old = _report(tmp_path, results.evaluated(), form="json").text
    assert "in part" not in json.loads(old)["sections"][1]["tables"][0]["columns"] and "Not judged" not in old
    document = results.evaluated()
    for row in document["rows"]:
        row |= {"partly": None if row["task"] == "classification" else 0.25}
    apart = {"model": "steered", "set": "forget", "task": "generation", "modality": "text", "n": 3}
    document |= {"judge": "facts", "unjudged": [{**apart, "refusal": 1.0, "identical_to_base": 0.0}]}
    sections = json.loads(_report(tmp_path, document, form="json").text)["sections"]
    tables = {table["caption"].partition(",")[0]: table for section in sections for table in section["tables"]}
    told = tables["forget (about the forgotten)"]
    assert [row[told["columns"].index("in part")] for row in told["rows"]] == ["25", "25", "", ""]
    assert tables["Not judged"]["rows"] == [["steered", "forget", "open", "text", "3", "1.000", "0.000"]]
    assert ["judge", "facts"] in tables["Where the numbers come from"]["rows"]


def test_the_markdown_form_is_well_formed(tmp_path: Path) -> None:
    text = report(results.everything(tmp_path), form="md").text
    lines = text.splitlines()
    for above, below in itertools.pairwise(lines):
        if above.startswith("|") and below.startswith("|"):
            assert above.replace(r"\|", "").count("|") == below.replace(r"\|", "").count("|")
    assert "| steered | 100 | 100 | 1 |" in text
    assert "\n\n\n" not in text


def test_drawings_are_also_files_for_a_paper(tmp_path: Path) -> None:
    made = _report(tmp_path, results.evaluated(), figures=tmp_path / "figures")
    assert [path.name for path in made.figures] == ["tradeoff.svg", "tradeoff.png", "replies.svg", "replies.png"]
    assert made.figures[0].read_text().startswith("<svg")
    with Image.open(made.figures[1]) as picture:
        colours = picture.convert("RGB").getcolors(1 << 24)
    assert colours is not None and (0x0A, 0x66, 0xC2) in {colour for _, colour in colours}


@pytest.mark.slow
def test_a_page_is_the_same_in_any_process(tmp_path: Path) -> None:
    """In two, because the order of a set follows the process's hash seed."""
    paths = results.everything(tmp_path)
    made = []
    for seed in ("1", "3"):
        page = tmp_path / f"{seed}.html"
        command = [sys.executable, "-m", "mllmeraser.cli", "report", *paths, "-o", page, "--quiet"]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        made.append(page.read_text())
    assert made[0] == made[1]


def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    document = results.evaluated()
    for row in document["rows"]:
        row["set"] = row["set"].replace("retain", "<script>alert(1)</script>|*x*")
    html, markdown = (_report(tmp_path, document, form=form).text for form in ("html", "md"))
    assert "<script" not in html
    assert r"\<script\>alert(1)\</script\>\|\*x\*" in markdown


def test_names_in_the_trade_off_cover_neither_points_nor_one_another() -> None:
    points = [
        {"name": f"method {i}", "forgotten": x, "kept": y, "seeds": "1", "judged": i == 3}
        for i, (x, y) in enumerate([(0, 100), (1, 99.5), (20, 95), (30, 94), (35, 96), (60, 95), (70, 90), (100, 100)])
    ]
    labels = tradeoff._labels(points)
    assert sorted(label["label"] for label in labels) == sorted(
        ["method 0, method 1", *(f"method {i}" for i in range(2, 8))]
    )
    assert labels[0]["label"] == "method 3"
    boxes = [(p["forgotten"] * 2.6 - 4, 260 - p["kept"] * 2.6 - 4, 8.0, 8.0) for p in points]
    for label in labels:
        width = 6.2 * len(label["label"])
        left = label["forgotten"] * 2.6 + label["dx"] - {"left": 0, "right": width, "center": width / 2}[label["align"]]
        box = (left, 260 - label["kept"] * 2.6 + label["dy"] - 6, width, 12.0)
        assert not any(tradeoff._meet(box, other) for other in boxes), label["label"]
        boxes.append(box)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Invalid JSON: .*; give what `mllmeraser evaluate -o` wrote"),
        ("[]", "Input should be an object; give what"),
        ('{"schema": 2}', "schema: Input should be 1; give what"),
        ('{"schema": 1}', "holds neither rows nor methods; give what"),
        ('{"rows": [{"model": "m"}]}', r"rows\.0\.set: Field required; give what `mllmeraser evaluate -o` wrote"),
        ('{"rows": [{"model": "m", "set": 1}]}', r"rows\.0\.set: Input should be a valid string; give what"),
    ],
)
def test_a_file_that_is_no_results_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        report([tmp_path / "file.json"])
    assert str(error.value).startswith(f"{tmp_path / 'file.json'}: ") and "\n" not in str(error.value)


def test_a_calibration_is_that_of_a_work_directory_or_of_compute(tmp_path: Path) -> None:
    paths, file = results.written(tmp_path, results.evaluated()), tmp_path / "calibration.json"
    written = results.calibration()
    drawn = []
    for document in (written, {"schema": 1, **written["chosen"], "curve": written["curve"]}):
        file.write_text(json.dumps(document))
        drawn.append(report(paths, calibration=file).text)
    assert drawn[0] == drawn[1] and "The best of 4 trials" in drawn[0]
    for document in (results.evaluated(), {**written, "curve": [{"layers": []}]}):
        file.write_text(json.dumps(document))
        with pytest.raises(InputError, match=r"curve.*; give what `mllmeraser compute --json` printed"):
            report(paths, calibration=file)


def test_items_that_are_none_are_one_line(tmp_path: Path) -> None:
    paths, items = results.written(tmp_path, results.evaluated()), tmp_path / "items.jsonl"
    for text, message in (
        ('{"model": "m"}', "line 1: set: Field required; give what `mllmeraser evaluate --items` wrote"),
        ("1", "line 1: Input should be an object"),
        ("{", "line 1: Invalid JSON"),
    ):
        items.write_text(text)
        with pytest.raises(InputError, match=message):
            report(paths, items=items, include_samples=True)


def test_provenance_is_shown_as_it_is_written(tmp_path: Path) -> None:
    made = {**results.evaluated(), "protocol": "mllmeraser", "provenance": {"versions": {"torch": "9.9"}}}
    table = _report(tmp_path, made, form="md").page.sections[-1].tables[0]
    assert ["versions: torch", "9.9"] in table.rows and ["protocol", "mllmeraser"] in table.rows
    assert ["sets about the forgotten", "forget"] in table.rows


def test_the_same_rows_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two rows for base · forget"):
        _report(tmp_path, results.evaluated(), results.evaluated())


def test_files_and_sets_that_are_not_there_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file or directory; give what"):
        report([tmp_path / "none.json"])
    with pytest.raises(InputError, match="--forget-set other: no rows of this set; there are forget, retain"):
        _report(tmp_path, results.evaluated(), forgotten=["other"])
    paths = results.written(tmp_path, results.evaluated())
    (tmp_path / "page.html").write_text("mine")
    with pytest.raises(InputError, match="exists"):
        report(paths, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == "mine"


def test_sets_about_the_forgotten_can_be_named(tmp_path: Path) -> None:
    made = _report(tmp_path, results.evaluated(0.0, 0.0), forgotten=["retain", "forget"], form="md")
    assert made.page.sentences[0].startswith("“steered” answers 0 % (0–2.3) of the 160 questions about the forgotten")


def test_numbers_never_round_to_all_or_none() -> None:
    assert [number(value) for value in (0, 0.01, 49.96, 50.0, 99.99, 100)] == ["0", "0.1", "50", "50", "99.9", "100"]
    assert percent(0.5) == "50 %"
    assert [seconds(value) for value in (0.05, 54.7, 451, 8163)] == ["0.05 s", "54.7 s", "8 min", "2.3 h"]
    assert [size(value) for value in (0, 65536, 3.2e9)] == ["0 B", "65.5 kB", "3.2 GB"]


def test_rates_are_pooled_by_records_not_by_rows() -> None:
    written = [{**results.row("m", "s", told, 1 - told, 1.0), "n": n} for told, n in ((1.0, 10), (0.0, 90))]
    few, many = (Row.model_validate_json(json.dumps(row)) for row in written)
    rate = pooled([few, many], told)
    assert rate is not None and rate.share == pytest.approx(0.1) and rate.n == 100
    assert rate.words == "10 % (5.5–17.4)"
    assert pooled([], told) is None


def test_a_file_in_the_place_of_the_figures_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "figures").touch()
    with pytest.raises(InputError, match=r"figures: is a file; give a folder$"):
        _report(tmp_path, results.evaluated(), output=tmp_path / "report.html", figures=tmp_path / "figures")
    assert not (tmp_path / "report.html").exists()
