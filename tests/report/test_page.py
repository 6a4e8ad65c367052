"""The page in a browser, and for those who do not see it."""

from __future__ import annotations

import functools
import http.server
import itertools
import json
import re
import shutil
import subprocess
import threading
from html.parser import HTMLParser
from pathlib import Path

import pytest
import results
from PIL import Image

from mllmeraser.evaluation.report.report import report

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
in_a_browser = pytest.mark.skipif(not CHROMIUM, reason="no chromium is installed")
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--no-first-run", "--force-device-scale-factor=1"]
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


def _chromium(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    profile = f"--user-data-dir={folder / 'profile'}"
    return subprocess.run([CHROMIUM, *FLAGS, profile, *arguments], capture_output=True, text=True, timeout=120)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Nothing."""


def _asked_by_the_page(folder: Path, page: Path, log: Path) -> tuple[str, str, set[str]]:
    """What the browser shows of a page that is served here, what it logs, and all that the page made it ask for."""
    handler = functools.partial(_Quiet, directory=str(page.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        origin = f"http://127.0.0.1:{server.server_port}"
        done = _chromium(
            folder, "--enable-logging=stderr", f"--log-net-log={log}", "--dump-dom", f"{origin}/{page.name}"
        )
        server.shutdown()
    # The browser asks for things of its own as well; those of the page name it as their initiator.
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    asked = [params["url"] for params in events if params.get("initiator") == origin]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, "\n".join(console), {url.removeprefix(origin) for url in asked}


@in_a_browser
def test_it_opens_without_an_error_and_asks_nobody_for_anything(page: Path, tmp_path: Path) -> None:
    shown, console, asked = _asked_by_the_page(tmp_path, page, tmp_path / "net.json")
    assert "Provenance and limits" in shown
    assert not console.replace("favicon", "")
    assert asked <= {"/favicon.ico"}


@in_a_browser
def test_a_page_that_asks_for_something_would_be_noticed(page: Path, tmp_path: Path) -> None:
    policy = r'<meta http-equiv="Content-Security-Policy"[^>]*>'
    worse = tmp_path / "worse.html"
    more = '<img src="x.png" alt=""><script>console.error("oh")</script></main>'
    worse.write_text(re.sub(policy, "", page.read_text()).replace("</main>", more))
    _, console, asked = _asked_by_the_page(tmp_path, worse, tmp_path / "net.json")
    assert "oh" in console and "/x.png" in asked


@in_a_browser
@pytest.mark.parametrize("dark", [False, True])
def test_its_drawings_are_drawn_in_light_and_dark(page: Path, tmp_path: Path, dark: bool) -> None:
    picture = tmp_path / "page.png"
    scheme = [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    _chromium(tmp_path, *scheme, "--window-size=1280,6000", f"--screenshot={picture}", page.as_uri())
    with Image.open(picture) as file:
        shot = file.convert("RGB")
    assert shot.getpixel((2, 2)) == (DARK_PAPER if dark else (255, 255, 255))
    counts = {colour: count for count, colour in shot.getcolors(1 << 24) or []}
    # Bars, points and gates: far more of the accent than the words in it have.
    assert counts.get(DARK_ACCENT if dark else ACCENT, 0) > 8000
    # Nothing that was drawn for white paper is left on dark.
    assert not dark or counts.get(ACCENT, 0) == 0


@in_a_browser
def test_it_fits_a_telephone(page: Path, tmp_path: Path) -> None:
    """In a frame of 390 pixels nothing but what scrolls by itself is wider, and no drawing is shrunk below 90 %."""
    script = """<script>addEventListener("load", () => {
      const drawn = [...document.querySelectorAll("figure > svg")];
      const least = Math.min(...drawn.map(s => s.getBoundingClientRect().width / s.viewBox.baseVal.width));
      parent.postMessage([document.documentElement.scrollWidth, innerWidth, least].join(" "), "*");
    });</script>"""
    inner = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', script, page.read_text())
    (tmp_path / "inner.html").write_text(inner)
    (tmp_path / "outer.html").write_text(
        '<body><iframe src="inner.html" width="390" height="800" style="border:0"></iframe><script>'
        'addEventListener("message", e => document.body.dataset.found = e.data)</script>'
    )
    dom = _chromium(tmp_path, "--virtual-time-budget=5000", "--dump-dom", (tmp_path / "outer.html").as_uri()).stdout
    found = re.search(r'data-found="(\d+) (\d+) ([\d.]+)"', dom)
    assert found is not None, dom[:500]
    assert int(found[1]) <= int(found[2]) == 390
    assert float(found[3]) > 0.9


@in_a_browser
def test_it_prints(page: Path, tmp_path: Path) -> None:
    paper = tmp_path / "page.pdf"
    _chromium(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={paper}", page.as_uri())
    data = paper.read_bytes()
    assert data.startswith(b"%PDF") and len(data) > 20_000


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
    assert len(drawings) == 11
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
