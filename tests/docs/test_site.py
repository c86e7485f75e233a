"""The site: built without a warning, every link and anchor leads somewhere, and nothing is asked of another host."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.report.test_page import BROWSER, SWITCHES

ROOT = Path(__file__).parents[2]
LOADS = {("script", "src"), ("link", "href"), ("img", "src"), ("source", "srcset"), ("iframe", "src"), ("object", "data")}


class Page(HTMLParser):
    """The ids of a page, its links, and what a browser loads to show it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.titles = self.unreached = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.titles += tag == "h1"
        self.unreached += tag == "pre" and ("tabindex", "0") not in attrs
        self.unreached += ("role", "heading") in attrs and "aria-level" not in dict(attrs)
        for key, value in attrs:
            if key == "id" and value:
                self.ids.add(value)
            elif (tag, key) in LOADS and value and ("rel", "canonical") not in attrs:
                self.loads.append(value)
            elif (tag, key) == ("a", "href") and value:
                self.links.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("sphinx")
    out = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run([sys.executable, "docs/_site/build.py", str(out)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_page_of_the_docs_is_in_the_site_and_in_its_contents(site, pages):
    contents = {(site / unquote(urlsplit(link).path)).resolve() for link in pages[site / "index.html"].links}
    for source in (ROOT / "docs").rglob("*.md"):
        page = (site / source.relative_to(ROOT / "docs")).with_suffix(".html")
        assert page in pages and (page in contents or source.name == "index.md"), source


def test_links_and_anchors_lead_somewhere(site, pages):
    broken = []
    for path, page in pages.items():
        for link in page.links + page.loads:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            if not target.exists():
                broken.append(f"{path.relative_to(site)}: {link}")
            elif url.fragment and target in pages and unquote(url.fragment) not in pages[target].ids:
                broken.append(f"{path.relative_to(site)}: {link} (no such anchor)")
    assert broken == []


def test_every_page_has_one_title(pages):
    told = {path.name: page.titles for path, page in pages.items() if path.name != "search.html"}  # whose script writes it
    assert {name: titles for name, titles in told.items() if titles != 1} == {}


def test_a_keyboard_reaches_code_that_scrolls_and_a_heading_has_a_level(pages):
    assert {path.name: page.unreached for path, page in pages.items() if page.unreached} == {}


@pytest.mark.parametrize("key", ["pygments_style", "pygments_dark_style"])
def test_the_colors_of_code_have_the_contrast_that_wcag_asks_for(key):
    styles = pytest.importorskip("pygments.styles")
    (name,) = re.findall(rf'^{key} = "(.+?)"', (ROOT / "docs/_site/conf.py").read_text(encoding="utf-8"), re.M)
    style = styles.get_style_by_name(name)
    colors = {token[1]["color"] for token in style if token[1]["color"]}
    assert {color for color in colors if contrast(color, style.background_color.lstrip("#")) < 4.5} == set() != colors


def contrast(one: str, other: str) -> float:
    """Of two colors as RRGGBB, as WCAG 2 defines it: 1 to 21."""
    lights = []
    for color in (one, other):
        red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (0, 2, 4))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_nothing_is_loaded_from_another_host(site, pages):
    for path, page in pages.items():
        assert [load for load in page.loads if urlsplit(load).netloc] == [], path
    for sheet in site.rglob("*.css"):
        assert re.findall(r"""(?:url\(|@import)\s*["']?(?:https?:)?//""", sheet.read_text(encoding="utf-8")) == [], sheet


def test_every_command_and_every_public_name_has_its_entry(site, pages):
    import typer

    import toolkit
    from toolkit.cli import main  # noqa: F401  registers the commands
    from toolkit.cli.app import app

    commands = set(typer.main.get_command(app).commands)
    told = pages[site / "reference" / "commands.html"].ids
    assert {f"toolkit-{name}" for name in commands} <= told
    names = {f"toolkit.{name}" for name in toolkit.__all__ if name != "ToolkitError"} | {"toolkit.errors.ToolkitError"}
    assert names <= pages[site / "reference" / "python.html"].ids


def test_links_between_files_of_the_repository_lead_somewhere():
    """As GitHub shows the files; what the site generates is only linked to from inside docs/."""
    made = {ROOT / "docs/reference/commands.md", ROOT / "docs/reference/python.md"}
    broken = []
    names = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, check=True, text=True).stdout.split()
    for name in names:
        text = re.sub(r"^```.*?^```", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.M | re.S)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            target = link.partition("#")[0]
            path = ((ROOT / name).parent / target).resolve()
            if target and not re.match(r"[a-z]+:", target) and not path.exists() and path not in made:
                broken.append(f"{name}: {link}")
    assert broken == []


AROUND = """<!doctype html><title></title><iframe width="390" height="800" style="border: 0"></iframe><script>
const frame = document.querySelector("iframe"), wide = {};
(async () => {
  for (const page of PAGES) {
    await new Promise(loaded => { frame.onload = loaded; frame.src = page; });
    wide[page] = [frame.contentDocument.documentElement.scrollWidth, frame.contentWindow.innerWidth];
  }
  document.title = JSON.stringify(wide);
})();
</script>"""


def test_no_page_is_wider_than_a_phone(site, pages, tmp_path):
    if BROWSER is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    names = sorted(str(path.relative_to(site)) for path in pages)
    (site / "around.html").write_text(AROUND.replace("PAGES", json.dumps(names)), encoding="utf-8")
    switches = [*(s for s in SWITCHES if "budget" not in s), "--virtual-time-budget=60000", "--allow-file-access-from-files"]
    command = [BROWSER, *switches, f"--user-data-dir={tmp_path}", (site / "around.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    (site / "around.html").unlink()
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.S)
    assert title and title[1], done.stderr[-2000:]
    wide = json.loads(unescape(title[1]))
    assert list(wide) == names and {window for _, window in wide.values()} == {390}
    assert {name: width for name, (width, _) in wide.items() if width > 390} == {}
