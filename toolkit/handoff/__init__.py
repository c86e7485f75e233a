"""Handoff: an engine in the form that another program loads or runs: ONNX Runtime, Triton, Ray."""

from __future__ import annotations

from toolkit.manifest import Manifest

_EXTRAS = {"cuda": "gpu", "tensorrt": "gpu"}


def extra_of(manifest: Manifest) -> str:
    """The extra of the toolkit that brings what runs this engine."""
    family = manifest.to_target().family
    return _EXTRAS.get(family, family)
