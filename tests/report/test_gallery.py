"""The gallery shows where answers differ, and no more pictures than it may."""

from __future__ import annotations

import base64
import io

import msgspec
import numpy as np
from PIL import Image

from toolkit.harness.answers import Answers
from toolkit.harness.results import Results
from toolkit.report.gallery import SIDE, data_uri, galleries


def test_each_picture_is_one_on_which_they_differ(results: Results, pictures):
    (gallery,) = galleries(results, pictures)
    verdict = next(v for v in results.verdicts if v.engine == gallery.engine)
    ours, theirs = (next(a for a in results.answers if a.engine == n) for n in (gallery.engine, gallery.reference))
    assert gallery.total == len(verdict.disagreements) > 0
    for shown in gallery.shown:
        names = results.manifests[gallery.engine]["classes"]
        assert (shown.engine, shown.reference) == (names[ours.top1[shown.index]], names[theirs.top1[shown.index]])
        assert shown.engine != shown.reference
        assert shown.truth == names[(ours.labels or ())[shown.index]]


def test_the_limit_holds_over_all_engines(results: Results, pictures):
    random = np.random.default_rng(0).standard_normal((600, 10)).astype(np.float32)
    wrong = msgspec.structs.replace(results.verdicts[0], disagreements=tuple(range(600)))
    answers = (*results.answers, Answers.of("fp32", "abc", random, None))
    many = msgspec.structs.replace(results, verdicts=(wrong, *results.verdicts[1:]), answers=answers)
    assert [len(g.shown) for g in galleries(many, pictures, limit=6)] == [3, 3]
    few = len(results.verdicts[2].disagreements)
    assert [len(g.shown) for g in galleries(many, pictures, limit=40)] == [40 - few, few]


def test_pictures_that_are_not_here_leave_the_answers(results: Results):
    (gallery,) = galleries(results, lambda _: None)
    assert gallery.shown
    assert all(one.image == "" for one in gallery.shown)


def test_an_embedded_picture_is_a_small_png_with_its_pixels_kept():
    pixels = np.arange(784, dtype=np.uint8).reshape(28, 28)
    data = base64.b64decode(data_uri(Image.fromarray(pixels)).split(",", 1)[1])
    picture = Image.open(io.BytesIO(data))
    assert (picture.format, picture.size) == ("PNG", (SIDE, SIDE))
    assert (np.asarray(picture)[2::4, 2::4] == pixels).all()
    wide = Image.open(io.BytesIO(base64.b64decode(data_uri(Image.new("RGBA", (640, 320))).split(",", 1)[1])))
    assert wide.size == (SIDE, SIDE // 2)
