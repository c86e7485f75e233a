"""The page in a real browser: nothing logged, nothing empty, nothing that a name could run, nothing wider than a phone."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from toolkit.harness.results import Results
from toolkit.report.gallery import galleries
from toolkit.report.page import html

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=2000",
    "--dump-dom",
)  # fmt: skip
# A page of ours has no script. The test shows it in a frame, as a headless window is at least 500 pixels wide, and the
# page around it reports what the browser laid out.
AROUND = """<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark"><title></title>
<iframe width="{width}" height="800" style="border: 0" srcdoc="{page}"></iframe><script>addEventListener("load", () => {{
  const page = frames[0].document, every = what => [...page.querySelectorAll(what)];
  const boxes = every("figure.chart .line, figure.chart .mark").map(e => e.getBoundingClientRect());
  document.title = JSON.stringify({{wide: page.documentElement.scrollWidth, window: frames[0].innerWidth, marks: boxes.length,
    flat: boxes.filter(b => b.width + b.height === 0).length, scripts: page.scripts.length,
    loaded: every("img").filter(i => i.naturalWidth).length, images: every("img").length,
    dark: frames[0].matchMedia("(prefers-color-scheme: dark)").matches,
    paper: frames[0].getComputedStyle(page.documentElement).backgroundColor}});
}});</script>"""


class Seen(msgspec.Struct):
    wide: int
    window: int
    marks: int
    flat: int
    scripts: int
    loaded: int
    images: int
    dark: bool
    paper: str


def browse(page: str, folder: Path, width: int = 1100, *, dark: bool = False) -> tuple[Seen, str]:
    """What the browser made of the page, and all that it wrote to its console."""
    if BROWSER is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    file = folder / "report.html"
    file.write_text(AROUND.format(width=width, page=escape(page)), encoding="utf-8")
    look = ["--blink-settings=preferredColorScheme=0"] if dark else []
    place = ["--window-size=1200,900", f"--user-data-dir={folder / 'profile'}", file.as_uri()]
    done = subprocess.run([BROWSER, *SWITCHES, *look, *place], capture_output=True, text=True, timeout=60, check=True)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.S)
    assert title
    return msgspec.json.decode(unescape(title[1]), type=Seen), "\n".join(x for x in done.stderr.splitlines() if "CONSOLE" in x)


@pytest.fixture(scope="module")
def page(results, pictures) -> str:
    return html(results, galleries(results, pictures))


@pytest.mark.parametrize(("width", "dark"), [(1100, False), (390, False), (390, True)])
def test_a_browser_shows_all_of_it_and_logs_nothing(page, tmp_path, width, dark):
    seen, console = browse(page, tmp_path, width, dark=dark)
    assert console == ""
    assert seen.window == width
    assert seen.dark == dark
    assert (seen.paper == "rgb(20, 23, 27)") == dark
    assert seen.wide <= width, "the page scrolls sideways"
    assert seen.marks >= 4 * 4, "a line or a point for each engine in each of the four charts"
    assert seen.flat == 0, "a mark of no size: the chart looks empty"
    assert seen.scripts == 0
    assert seen.loaded == seen.images > 0


def test_the_browser_check_finds_what_it_looks_for(page, tmp_path):
    broken = page.replace("<main>", "<main><div style='width: 2000px'>wide</div><script>console.error('bad')</script>", 1)
    seen, console = browse(broken, tmp_path, 390)
    assert seen.wide > 390
    assert seen.scripts == 1
    assert "bad" in console


class Elements(HTMLParser):
    """Which elements there are, what they point at, and whether each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.links += [value for key, value in attrs if key in ("src", "href", "xlink:href") and value]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def elements(page: str) -> Elements:
    parser = Elements()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_it_is_one_file_without_scripts_and_hostile_names_are_text(page):
    found = elements(page)
    assert "script" not in found.names
    assert all(link.startswith("data:image/png;base64,") for link in found.links)
    assert "url(" not in page
    assert "@import" not in page
    assert "<script" not in page
    assert "&lt;script&gt;alert('x')&lt;/script&gt;" in page
    assert len(page.encode()) < 400_000


def test_sections_come_verdict_first_and_each_chart_has_a_table(page):
    assert re.findall(r'<section id="([a-z-]+)"', page) == [
        "verdict", "summary", "accuracy-speed", "latency", "batches", "roofline", "layers", "gallery", "trust", "environment",
        "manifests",
    ]  # fmt: skip
    for section in re.findall(r"<section.*?</section>", page, re.S):
        assert section.count('role="img"') <= section.count("<table")
    for drawing in re.findall(r'<svg viewBox="0 0 420.*?</svg>', page, re.S):
        assert "<title>" in drawing
        assert "<desc>" in drawing
    assert all('alt="' in image for image in re.findall(r"<img[^>]*>", page))


def test_without_data_every_chart_says_so_instead_of_being_empty(results: Results, tmp_path):
    bare = Results(environment=results.environment)
    page = html(bare)
    elements(page)
    assert "viewBox=\"0 0 420" not in page
    assert page.count("Nothing was measured for this chart.") == 4
    assert "No engine was held against a reference" in page
    seen, console = browse(page, tmp_path, 390)
    assert (seen.marks, console) == (0, "")


def test_a_refused_engine_is_refused_in_words(results: Results):
    strict = tuple(msgspec.structs.replace(v, min_agreement=1.0) for v in results.verdicts)
    page = html(msgspec.structs.replace(results, verdicts=strict))
    assert page.count("✗ refused") == sum(v.agreement < 1 for v in results.verdicts) > 0
    assert page.count("✓ accepted") == sum(v.agreement == 1 for v in results.verdicts)
