"""Files of the repository that pages link to: each becomes a page, or a plain file, of the site under `source/`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

SOURCE = "source/"
SHOWN = {".py": "python", ".toml": "toml", ".yml": "yaml", ".sh": "bash"}  # as a page with the text; else a plain file
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.M | re.S)


def linked(root: Path, docs: Path) -> list[Path]:
    """Every file and folder outside `docs` that a page there links to, or that one of those links to in turn."""
    todo, seen = sorted(docs.rglob("*.md")), set()
    while todo:
        path = todo.pop()
        for target in _targets(path):
            if target in seen or not target.exists() or target.is_relative_to(docs):
                continue
            seen.add(target)
            if target.is_dir():
                listed = [file for file in sorted(target.iterdir()) if _listed(file)]
                seen.update(listed)
                todo += [file for file in listed if file.suffix == ".md"]
            elif target.suffix == ".md":
                todo.append(target)
    return sorted(seen)


def page_of(path: Path, root: Path) -> str:
    """Where a file of the repository stands in the site, as a name inside docs/."""
    name = path.relative_to(root).as_posix()
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    if path.is_dir():
        return f"{SOURCE}{name}/index.md"
    return f"{SOURCE}{name}.md" if path.suffix in SHOWN else f"{SOURCE}{name}"


def rewritten(root: Path, path: Path) -> str:
    """The Markdown of a page, with each link to a file as the site has it."""
    here = os.path.dirname(page_of(path, root))

    def link(match: re.Match[str]) -> str:
        target, anchor = _split(path, match[2])
        if target is None or not target.exists():
            return match[0]
        return f"{match[1]}{os.path.relpath(page_of(target, root), here or '.')}{anchor}{match[3]}"

    if path.is_dir():
        names = [file for file in sorted(path.iterdir()) if _listed(file)]
        lines = [f"- [{file.name}]({os.path.relpath(page_of(file, root), here)})" for file in names]
        return f"# {path.relative_to(root)}\n\n" + "\n".join(lines) + "\n"
    text = path.read_text(encoding="utf-8")
    if path.suffix in SHOWN:
        return f"# {path.relative_to(root)}\n\n~~~~{SHOWN[path.suffix]}\n{text}\n~~~~\n"
    return outside_fences(text, lambda part: LINK.sub(link, part))


def outside_fences(text: str, change: Callable[[str], str]) -> str:
    """`text` with `change` made to all that is not in a fenced block."""
    parts, last = [], 0
    for fence in FENCE.finditer(text):
        parts += [change(text[last : fence.start()]), fence[0]]
        last = fence.end()
    return "".join([*parts, change(text[last:])])


def _targets(path: Path) -> list[Path]:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    return [target for match in LINK.finditer(text) if (target := _split(path, match[2])[0]) is not None]


def _split(page: Path, link: str) -> tuple[Path | None, str]:
    name, mark, anchor = link.partition("#")
    if not name or re.match(r"[a-z]+:", name) or name.startswith("/"):
        return None, ""
    return Path(os.path.normpath(page.parent / name)), mark + anchor


def _listed(file: Path) -> bool:
    return file.is_file() and file.suffix in {*SHOWN, ".md", ".json"}
