"""The order of the pages. Any other page is added behind those of its kind; one that is named here and missing is an error."""

from __future__ import annotations

from pathlib import Path

NAV = {
    "Tutorial": ["tutorial"],
    "How to": [
        "how-to/checkpoint", "how-to/onnx", "how-to/int8-refused", "how-to/other-gpu", "how-to/embedding", "how-to/serving",
        "how-to/triton", "how-to/ray", "how-to/containers", "how-to/capacity", "how-to/gate", "how-to/parity",
        "how-to/trtexec", "how-to/calibrators", "how-to/ultralytics", "how-to/data",
    ],
    "Reference": [
        "reference/commands", "reference/recipe", "reference/python", "reference/exit-codes", "reference/json",
        "reference/engines", "reference/weights", "reference/report", "reference/glossary",
    ],
    "Explanation": [
        "explanation/precision", "explanation/calibration", "explanation/equalization", "explanation/verdicts",
        "explanation/benchmarking", "explanation/resnet", "explanation/tensorrt", "explanation/cpu-int8", "explanation/why",
        "explanation/threats",
    ],
}  # fmt: skip
SLOTS: set[str] = set()  # pages on their way: no error while they are not there
FOLDERS = {"how-to": "How to", "reference": "Reference", "explanation": "Explanation"}  # all else: How to


def nav(docs: Path) -> dict[str, list[str]]:
    """Caption -> pages, without suffix: those named above, then any other that is in `docs`, in the order of their names."""
    named = {page for pages in NAV.values() for page in pages} | {"index"}
    absent = {page for page in SLOTS if not (docs / f"{page}.md").is_file()}
    found = {caption: [page for page in pages if page not in absent] for caption, pages in NAV.items()}
    for path in sorted(docs.rglob("*.md")):
        page = path.relative_to(docs).with_suffix("").as_posix()
        if page not in named and not page.startswith("_"):
            found[FOLDERS.get(page.split("/")[0], "How to")].append(page)
    return found


def toctrees(docs: Path) -> str:
    """The table of contents at the end of the first page, in MyST's Markdown."""
    parts = []
    for caption, pages in nav(docs).items():
        parts += ["```{toctree}", ":hidden:", f":caption: {caption}", "", *(f"/{page}" for page in pages), "```", ""]
    return "\n".join(parts)
