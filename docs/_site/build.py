"""Builds the site: lays out the sources under build/, with generated pages and files of the repository, and runs Sphinx on them.

    python docs/_site/build.py [FOLDER]

Every warning is an error: a link or an anchor that leads nowhere, a page that is missing, a docstring that cannot be read.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from api import api  # noqa: E402
from commands import commands  # noqa: E402
from nav import toctrees  # noqa: E402
from repository import linked, page_of, rewritten  # noqa: E402

TWO_MODES = re.compile(r"^!\[([^\]]*)\]\(([^)#]+)#gh-(light|dark)-mode-only\)$", re.M)


def stage(folder: Path) -> None:
    """Write every source that Sphinx reads into `folder`."""
    docs = ROOT / "docs"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(docs, folder, ignore=shutil.ignore_patterns("_site"))
    for page in sorted(docs.rglob("*.md")):
        text = TWO_MODES.sub(_picture, rewritten(ROOT, page))
        (folder / page.relative_to(docs)).write_text(text, encoding="utf-8")
    (folder / "reference" / "commands.md").write_text(commands(), encoding="utf-8")
    (folder / "reference" / "python.md").write_text(api(), encoding="utf-8")
    for path in linked(ROOT, docs):
        target = folder / page_of(path, ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".md":
            text = rewritten(ROOT, path)
            title = "" if text.startswith("# ") else f"# {path.relative_to(ROOT)}\n\n"  # a script's table has none
            target.write_text(f"---\norphan: true\n---\n{title}{text}", encoding="utf-8")
        else:
            shutil.copy(path, target)
    with (folder / "index.md").open("a", encoding="utf-8") as index:
        index.write("\n" + toctrees(docs))


def build(out: Path) -> int:
    """Build the site into `out`; returns the exit code, which a warning makes other than 0."""
    from sphinx.cmd.build import build_main

    sources = out.parent / f"{out.name}-sources"
    stage(sources)
    shutil.rmtree(out, ignore_errors=True)
    switches = ["-q", "-W", "--keep-going", "-b", "html", "-d", str(out.parent / f"{out.name}-doctrees")]
    return build_main([*switches, "-c", str(Path(__file__).parent), str(sources), str(out)])


def _picture(match: re.Match[str]) -> str:
    return f"```{{image}} {match[2]}\n:alt: {match[1]}\n:class: only-{match[3]}\n```"


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "site"
    code = build(folder)
    print(f"{folder}/index.html" if code == 0 else "the docs have warnings: see above")
    sys.exit(code)
