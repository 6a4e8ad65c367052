"""The page in a browser, and for those who do not see it."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest
from builders import results
from PIL import Image

from mllmeraser.report.report import report

if TYPE_CHECKING:
    from playwright.sync_api import Page

NewTab: TypeAlias = "Callable[..., Page]"
ACCENT, DARK_ACCENT, DARK_PAPER = (0x0A, 0x66, 0xC2), (0x6C, 0xB2, 0xFF), (0x14, 0x17, 0x1B)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (folder / "calibration.json").write_text(json.dumps(results.calibration()))
    (folder / "items.jsonl").write_text(results.items())
    report(
        results.everything(folder),
        folder / "report.html",
        calibration=folder / "calibration.json",
        items=folder / "items.jsonl",
        include_samples=True,
    )
    return folder / "report.html"


def _opened(new_tab: NewTab, page: Path) -> tuple[str, list[str], list[str]]:
    """What the browser shows of a page, the errors it logs, and all that the page made it ask for."""
    errors: list[str] = []
    asked: list[str] = []
    with new_tab() as tab:
        tab.on("console", lambda message: errors.append(message.text))
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(page.as_uri(), wait_until="networkidle")
        return tab.inner_text("body"), errors, [url for url in asked if url != page.as_uri()]


def test_it_opens_without_an_error_and_asks_nobody_for_anything(new_tab: NewTab, page: Path) -> None:
    shown, errors, asked = _opened(new_tab, page)
    assert "Provenance and limits" in shown
    assert not errors and not asked


def test_a_page_that_asks_for_something_would_be_noticed(new_tab: NewTab, page: Path, tmp_path: Path) -> None:
    policy = r'<meta http-equiv="Content-Security-Policy"[^>]*>'
    worse = tmp_path / "worse.html"
    more = '<img src="x.png" alt=""><script>console.error("oh")</script></main>'
    worse.write_text(re.sub(policy, "", page.read_text()).replace("</main>", more))
    _, errors, asked = _opened(new_tab, worse)
    assert "oh" in errors and asked == [(tmp_path / "x.png").as_uri()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_its_drawings_are_drawn_in_light_and_dark(new_tab: NewTab, page: Path, scheme: str) -> None:
    dark = scheme == "dark"
    with new_tab(color_scheme=scheme, viewport={"width": 1280, "height": 6000}) as tab:
        tab.goto(page.as_uri())
        shot = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
    assert shot.getpixel((2, 2)) == (DARK_PAPER if dark else (255, 255, 255))
    counts = {colour: count for count, colour in shot.getcolors(1 << 24) or []}
    # Bars, points and gates: far more of the accent than the words in it have.
    assert counts.get(DARK_ACCENT if dark else ACCENT, 0) > 8000
    # Nothing that was drawn for white paper is left on dark.
    assert not dark or counts.get(ACCENT, 0) == 0


def test_it_fits_a_telephone(new_tab: NewTab, page: Path) -> None:
    """At 390 pixels nothing but what scrolls by itself is wider, and no drawing is shrunk below 90 %."""
    with new_tab(viewport={"width": 390, "height": 800}) as tab:
        tab.goto(page.as_uri())
        width, least = tab.evaluate("""() => {
          const drawn = [...document.querySelectorAll("figure > svg")];
          const shares = drawn.map(s => s.getBoundingClientRect().width / s.viewBox.baseVal.width);
          return [document.documentElement.scrollWidth, Math.min(...shares)];
        }""")
    assert width <= 390
    assert least > 0.9


def test_it_is_walked_by_keyboard(new_tab: NewTab, page: Path) -> None:
    """The first stop of the tab key is a link, and following it leads to what it names."""
    with new_tab() as tab:
        tab.goto(page.as_uri())
        tab.keyboard.press("Tab")
        target = tab.evaluate("document.activeElement.getAttribute('href')")
        assert target.startswith("#")
        tab.keyboard.press("Enter")
        assert tab.evaluate("location.hash") == target
        assert tab.locator(target).count() == 1


def test_it_prints(new_tab: NewTab, page: Path) -> None:
    with new_tab() as tab:
        tab.goto(page.as_uri())
        paper = tab.pdf()
    assert paper.startswith(b"%PDF") and len(paper) > 20_000


class _Outline(HTMLParser):
    """What a screen reader walks along."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def _outline(page: Path) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Outline()
    parser.feed(page.read_text())
    return parser.tags


def test_headings_landmarks_and_links_lead_through_it(page: Path) -> None:
    tags = _outline(page)
    assert ("html", {"lang": "en"}) in tags
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in tags if tag == "a"]
    assert len(links) > 5 and all(link and link[1:] in ids for link in links)
    for _, attributes in tags:
        for reference in ("aria-labelledby", "aria-describedby"):
            assert set((attributes.get(reference) or "").split()) <= set(ids)


def test_every_drawing_has_a_name_a_description_and_a_table(page: Path) -> None:
    tags = _outline(page)
    drawings = [attributes for tag, attributes in tags if tag == "svg"]
    assert len(drawings) == 12
    for drawing in drawings:
        assert drawing["role"] == "img" and len((drawing["aria-labelledby"] or "").split()) == 2
    assert sum(tag == "figcaption" for tag, _ in tags) == sum(tag == "details" for tag, _ in tags) == len(drawings)


def test_tables_say_what_their_cells_belong_to_and_scroll_by_keyboard(page: Path) -> None:
    tags = _outline(page)
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in tags if tag == "th")
    regions = [attributes for tag, attributes in tags if attributes.get("class") == "scroll"]
    assert len(regions) == sum(tag == "table" for tag, _ in tags)
    assert all(region["tabindex"] == "0" and region["aria-label"] for region in regions)


def test_it_holds_no_script_and_no_address(page: Path) -> None:
    text = page.read_text()
    assert "<script" not in text and "javascript:" not in text
    assert not [attributes for _, attributes in _outline(page) if "src" in attributes]
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.findall(r"url\((?!#)", text)


def test_the_colours_of_drawings_are_those_that_the_style_turns_for_the_dark(page: Path) -> None:
    text = page.read_text()
    style, drawn = text[text.index("<style>") : text.index("</style>")], text[text.index("</style>") :]
    used = set(re.findall(r'(?:fill|stroke)="(#[0-9a-f]{6})"', drawn))
    turned = set(re.findall(r'svg \[(?:fill|stroke)="(#[0-9a-f]{6})"\]', style))
    assert used and used <= turned, used - turned
