"""Sphinx's settings. `make docs` (build.py) lays the sources out first; every warning is an error."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

project = _PROJECT["name"]
release = version = _PROJECT["version"]
html_title = f"{project} {version}"
author = "resnet-deploy maintainers"
project_copyright = author
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_site"]

default_role = "code"  # single backticks in docstrings
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 90
add_module_names = False

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "a11y-high-contrast-light"  # strings of many styles are too pale to read
pygments_dark_style = "a11y-high-contrast-dark"


def setup(app: Sphinx) -> None:
    app.connect("html-page-context", _mended, priority=900)  # after the theme's own


def _mended(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Options (`--json`) are not broken behind their dashes, a keyboard reaches code that scrolls, headings have a level."""
    if "body" in context:
        body = context["body"].replace('<span class="pre">--', '<span class="pre option">--')
        context["body"] = body.replace("<pre>", '<pre tabindex="0">').replace('role="heading"', 'role="heading" aria-level="2"')
    if "furo_navigation_tree" in context:
        tree = context["furo_navigation_tree"]
        context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')
