"""Checkpoints that lose most of their accuracy in naive INT8; they run where the files are given.

RESNET_WEIGHTS: timm's resnet50.a1_in1k or torchvision's ResNet-50 IMAGENET1K_V2, or such. RESNET_IMAGES: ImageNet's validation
images, a folder a class. RESNET_ARCH: resnet50 where absent. RESNET_CALIBRATION: images to calibrate with; absent: the same.
"""

from __future__ import annotations

import os

import pytest

from toolkit.graph.run import graph_runner
from toolkit.harness.accuracy import answers_of, compare_accuracy
from toolkit.images.dataset import open_data
from toolkit.pipeline import prepare, typed
from toolkit.recipe import Accept, Calibration, Precision, Preprocess, Recipe, Reference
from toolkit.types import Target

WEIGHTS, IMAGES = os.environ.get("RESNET_WEIGHTS"), os.environ.get("RESNET_IMAGES")


@pytest.mark.skipif(not (WEIGHTS and IMAGES), reason="set RESNET_WEIGHTS and RESNET_IMAGES (see the module)")
def test_a_checkpoint_that_naive_int8_ruins_keeps_its_budget() -> None:
    assert WEIGHTS
    assert IMAGES
    recipe = Recipe(
        name="published",
        reference=Reference(arch=os.environ.get("RESNET_ARCH", "resnet50"), weights=WEIGHTS),  # type: ignore[arg-type]
        preprocess=Preprocess(resize=256),
        precision=Precision(int8=True),
        calibration=Calibration(data=os.environ.get("RESNET_CALIBRATION", IMAGES), images=256, method="percentile"),
        accept=Accept(data=IMAGES),
    )
    trip = prepare(recipe, proof=False)
    images = open_data(IMAGES, recipe.preprocess)
    truth = answers_of(graph_runner(trip.source.graph), images)
    answers = answers_of(graph_runner(typed(trip, Target("cpu"))), images)
    verdict = compare_accuracy(truth, answers, images.labels)
    assert verdict.word in ("same", "better"), verdict.text
