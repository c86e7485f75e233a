"""The page: one file without foreign scripts, which shows answers to a dropped picture and the batcher at work."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from toolkit.serve.refused import Answer


def _digests(page: bytes, tag: bytes) -> str:
    """What a Content-Security-Policy calls the page's own scripts or styles; any other is not run, wherever it came from."""
    bodies = re.findall(rb"<%s>(.*?)</%s>" % (tag, tag), page, re.S)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(body).digest()).decode()}'" for body in bodies)


def _page() -> Answer:
    body = (files("toolkit.serve") / "page.html").read_bytes()
    policy = (
        f"default-src 'none'; script-src {_digests(body, b'script')}; style-src {_digests(body, b'style')}; "
        "connect-src 'self'; img-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = (
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cache-control", b"no-cache"),
    )
    return Answer(body, kind=b"text/html; charset=utf-8", headers=headers)


PAGE = _page()
