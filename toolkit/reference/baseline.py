"""Baseline: what an engine keeps of its reference, so that it can be judged and compared where the reference is not."""

from __future__ import annotations

import time

import msgspec
import numpy as np

from toolkit import cpu
from toolkit.disk import cache
from toolkit.disk.files import sha256_bytes
from toolkit.harness.answers import rank_of
from toolkit.images.dataset import Images
from toolkit.manifest import Baseline
from toolkit.recipe import Recipe
from toolkit.runtime.runner import Runner
from toolkit.types import Float

SECONDS, CALLS = 0.6, 200  # of timing, at most; three calls at least


def baseline_of(reference: Runner, recipe: Recipe, images: Images | None = None, truth: Float | None = None) -> Baseline:
    """`truth` are the reference's logits float32 [n, classes] on `images`, where the engine will carry them."""
    meaning = reference.manifest.meaning
    labels = images.labels if images is not None and truth is not None and not meaning.multilabel else None
    libraries = ", ".join(f"{name} {version}" for name, version in reference.manifest.versions.items())
    threads = int(reference.manifest.settings.get("threads", cpu.cores()))
    return Baseline(
        name=recipe.reference.arch or "an ONNX file",
        device=cpu.name(),
        library=libraries or reference.manifest.device,
        latency=_latency(reference, threads),
        threads=threads,
        images=0 if truth is None else len(truth),
        data=images.sha256 if images is not None and truth is not None else "",
        top1=None if labels is None or truth is None else float((rank_of(meaning.scores(truth), labels) == 0).mean()),
    )


def _latency(reference: Runner, threads: int) -> float:
    """Median seconds of a call at batch 1, after one that does not count; kept, so that a repeated build gives the same bytes."""
    manifest = reference.manifest
    card = (manifest.hashes, manifest.versions, manifest.preprocess, threads, cpu.name())
    key = sha256_bytes(msgspec.json.encode(card, order="sorted"))[:24]
    kept = cache.find("baseline", key)
    if kept is not None:
        return float(msgspec.json.decode(kept, type=float))
    spec = manifest.inputs[0]
    image = np.zeros((1, *(int(size) for size in spec.shape[1:])), np.float32)
    reference(image)
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(times) < 3 or (len(times) < CALLS and time.perf_counter() < end):
        start = time.perf_counter()
        reference(image)
        times.append(time.perf_counter() - start)
    median = float(np.median(times))
    cache.keep("baseline", key, msgspec.json.encode(median))
    return median
