"""The page in a real browser: nothing logged, nothing empty, nothing that a name could run, nothing wider than a phone."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

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
# The test shows the page in a frame, as a headless window is at least 500 pixels wide; the page around it does what a reader
# would, and reports what the browser laid out. In a frame with `sandbox` the page's own script does not run.
AROUND = """<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark"><title></title>
<iframe width="{width}" height="800" style="border: 0" {sandbox} srcdoc="{page}"></iframe>
<script>addEventListener("load", () => {{
  const page = frames[0].document, every = what => [...page.querySelectorAll(what)];
  const words = [...every("main *")].filter(e => !e.closest(".zoom, .filter, .reading"));
  const said = words.map(e => [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.data).join("")).join(" ");
  const did = {act};
  const boxes = every("figure.chart .line, figure.chart .mark").map(e => e.getBoundingClientRect());
  document.title = JSON.stringify({{wide: page.documentElement.scrollWidth, window: frames[0].innerWidth, marks: boxes.length,
    flat: boxes.filter(b => b.width + b.height === 0).length, scripts: page.scripts.length,
    loaded: every("img").filter(i => i.naturalWidth).length, images: every("img").length,
    said: said.replace(/\\s+/g, " ").trim().length, did,
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
    said: int  # letters of text that are not only there for the script's own tools
    did: Any
    dark: bool
    paper: str


def browse(
    page: str, folder: Path, width: int = 1100, *, dark: bool = False, script: bool = True, act: str = "null"
) -> tuple[Seen, str]:
    """What the browser made of the page, and all that it wrote to its console. `act` is an expression to see the page by."""
    if BROWSER is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    file = folder / "report.html"
    file.write_text(
        AROUND.format(width=width, page=escape(page), act=act, sandbox="" if script else "sandbox='allow-same-origin'"),
        encoding="utf-8",
    )
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
    assert seen.scripts == 1, "the page's own"
    assert seen.loaded == seen.images > 0


def test_the_browser_check_finds_what_it_looks_for(page, tmp_path):
    broken = page.replace("<main>", "<main><div style='width: 2000px'>wide</div><script>console.error('bad')</script>", 1)
    seen, console = browse(broken, tmp_path, 390)
    assert seen.wide > 390
    assert seen.scripts == 2
    assert "Content Security Policy" in console
    assert "'bad'" not in console.replace("console.error('bad')", ""), "a script that is not the page's own ran"


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


def test_it_is_one_file_and_hostile_names_are_text(page):
    found = elements(page)
    assert found.names.count("script") == 1
    assert all(link.startswith("data:image/png;base64,") for link in found.links)
    assert "url(" not in page
    assert "@import" not in page
    assert page.count("<script>") == 1
    assert "default-src 'none'" in page
    assert "unsafe-inline'; script-src 'sha256-" in page
    assert "&lt;script&gt;alert('x')&lt;/script&gt;" in page
    assert len(page.encode()) < 400_000


def test_sections_come_verdict_first_and_each_chart_has_a_table(page):
    assert re.findall(r'<section id="([a-z-]+)"', page) == [
        "verdict", "summary", "ratios", "accuracy-speed", "latency", "batches", "roofline", "layers", "histograms", "classes",
        "gallery", "trust", "timeline", "environment", "manifests",
    ]  # fmt: skip
    for section in re.findall(r"<section.*?</section>", page, re.S):
        if section.count('viewBox="0 0 420'):
            assert "<table" in section
    for drawing in re.findall(r'<svg viewBox="0 0 420.*?</svg>', page, re.S):
        assert "<title>" in drawing
        assert "<desc>" in drawing
    assert all('alt="' in image for image in re.findall(r"<img[^>]*>", page))


def test_without_data_every_chart_says_so_instead_of_being_empty(results: Results, tmp_path):
    bare = Results(environment=results.environment)
    page = html(bare)
    elements(page)
    assert 'viewBox="0 0 420' not in page
    assert page.count("Nothing was measured for this chart.") == 4
    assert "No engine was compared with a reference" in page
    seen, console = browse(page, tmp_path, 390)
    assert (seen.marks, console) == (0, "")


def test_a_refused_engine_is_refused_in_words(results: Results):
    strict = tuple(msgspec.structs.replace(v, min_agreement=1.0) for v in results.verdicts)
    page = html(msgspec.structs.replace(results, verdicts=strict))
    assert page.count("✗ refused") == sum(v.agreement < 1 for v in results.verdicts) > 0
    assert page.count("✓ accepted") == sum(v.agreement == 1 for v in results.verdicts)


def test_without_script_it_says_all_that_it_says_with_it(page, tmp_path):
    with_script, _ = browse(page, tmp_path, 390)
    without, _ = browse(page, tmp_path, 390, script=False, act="every('button, input, .reading').length")
    assert without.did == 0
    assert without.said == with_script.said > 3000
    assert without.wide <= 390
    assert without.flat == 0


SORTS = """(() => {
  const table = page.querySelector("#summary table");
  const first = () => [...table.tBodies[0].rows].map(r => r.cells[2].innerText.trim());
  const button = [...table.querySelectorAll("button")].find(b => b.textContent === "p50 ms"), seen = [first()];
  for (let i = 0; i < 3; i++) { button.click(); seen.push(first()); }
  return seen;
})()"""


def test_a_heading_sorts_its_column_by_number_and_a_third_click_restores(page, tmp_path):
    seen, console = browse(page, tmp_path, act=SORTS)
    before, down, up, restored = ([float(cell.split()[0].replace("-", "nan")) for cell in cells] for cells in seen.did)
    assert down[:4] == sorted(before[:4], reverse=True)
    assert up[:4] == sorted(before[:4])
    assert [x for x in restored if x == x] == [x for x in before if x == x]
    assert down[-1] != down[-1], "what has no figure stands last"
    assert console == ""


READS = """(() => {
  const svg = page.querySelector("#latency svg[data-x]"), box = svg.getBoundingClientRect();
  const where = {clientX: box.left + box.width / 2, clientY: box.top + box.height / 2};
  svg.dispatchEvent(new frames[0].PointerEvent("pointermove", where));
  return page.querySelector("#latency .reading").textContent;
})()"""


def test_a_chart_reads_off_the_nearest_point(page, results, tmp_path):
    seen, _ = browse(page, tmp_path, act=READS)
    name, _, figures = seen.did.rpartition(": ")
    assert name in results.engines
    found = re.fullmatch(r"([\d.e+]+) milliseconds a call, ([\d.]+) share of calls, %", figures)
    assert found
    times = next(m.seconds for m in results.measurements if m.engine == name and m.batch == 1) * 1e3
    assert times.min() <= float(found[1]) * 1.001
    assert float(found[1]) <= times.max() * 1.001
    low, high = (100 * (times <= float(found[1]) * factor).mean() for factor in (0.998, 1.002))
    assert low - 1 <= float(found[2]) <= high + 1, "the two figures belong to one point of the line"


WALKS = """(() => {
  const figure = page.querySelector("figure.network"), boxes = [...figure.querySelectorAll("g.box")];
  const press = (key, where) => where.dispatchEvent(new frames[0].KeyboardEvent("keydown", {key, bubbles: true}));
  boxes[0].focus();
  press("ArrowRight", boxes[0]);
  const told = figure.querySelector(".reading").textContent, before = figure.querySelector("svg").style.width;
  press("+", figure);
  const larger = figure.querySelector("svg").style.width;
  press("0", figure);
  return [told, page.activeElement === boxes[1], before, larger, figure.querySelector("svg").style.width,
          boxes.filter(b => b.getAttribute("tabindex") === "0").length];
})()"""


def test_the_network_is_walked_by_keys_and_zooms(page, tmp_path):
    seen, console = browse(page, tmp_path, act=WALKS)
    told, moved, _, larger, restored, stops = seen.did
    assert told.startswith("layer2.conv (Conv, int8): ")
    assert moved
    assert (larger, restored, stops) == ("140%", "100%", 1)
    assert console == ""


FILTERS = """(() => {
  const field = page.querySelector("#layers input");
  field.value = "layer7";
  field.dispatchEvent(new frames[0].Event("input"));
  const rows = [...field.closest(".grid").querySelectorAll("tbody tr")];
  return [rows.filter(r => !r.hidden).length, rows.length, field.parentElement.querySelector("output").textContent];
})()"""


def test_a_long_table_filters(page, tmp_path):
    seen, _ = browse(page, tmp_path, act=FILTERS)
    assert seen.did == [1, 19, "1 of 19"]


def test_it_prints(page, tmp_path):
    if BROWSER is None:
        pytest.skip("no Chromium here")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    target = tmp_path / "page.pdf"
    place = [f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={target}", (tmp_path / "page.html").as_uri()]
    subprocess.run([BROWSER, *(s for s in SWITCHES if s != "--dump-dom"), *place], capture_output=True, timeout=60, check=True)
    paper = target.read_bytes()
    assert paper.startswith(b"%PDF")
    assert 3 <= paper.count(b"/Type /Page\n") + paper.count(b"/Type /Page/") <= 40


def test_what_was_not_measured_did_not_fail(results: Results):
    absent = msgspec.structs.replace(results, failures={"reference": "not measured: it is not on this machine"})
    page = html(absent)
    assert "reference failed" not in page
    assert "reference: </strong>not measured" in page
