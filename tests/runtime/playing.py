"""A TensorRT engine played on host memory: y = x.reshape(N, 12) @ weights."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

import toolkit.testing
from toolkit.manifest import Manifest, Profile
from toolkit.recipe import Preprocess
from toolkit.runtime.tensorrt import TensorRTExecutor
from toolkit.testing.double import library
from toolkit.testing.host import HostDevice
from toolkit.testing.played import Network
from toolkit.types import TensorSpec

RECORDINGS = {
    ("tensorrt", 11): "tensorrt-11.4.json",
    ("tensorrt", 10): "tensorrt-10.16.json",
    ("tensorrt_rtx", 1): "tensorrt-rtx-1.7.json",
}
X = TensorSpec(name="x", dtype="float32", shape=("N", 3, 2, 2))
Y = TensorSpec(name="y", dtype="float32", shape=("N", 5))
WEIGHTS = np.random.default_rng(1).normal(size=(12, 5)).astype(np.float32)


def recording(package="tensorrt", major=11):
    return json.loads((Path(toolkit.testing.__file__).parent / "recordings" / RECORDINGS[package, major]).read_text())


def answer(x):
    return x.reshape(len(x), -1) @ WEIGHTS


def linear(arrays):
    return {"y": answer(arrays["x"])}


class Played(SimpleNamespace):
    """Device, library, manifest and `load()`, which makes an executor of them."""

    def load(self, data=b"engine", **options):
        heard = self.heard

        class Logger(self.library.ILogger):
            def __init__(self):
                super().__init__()

            def log(self, severity, msg):
                heard.append(msg)

        def said():
            return heard[-1] if heard else ""

        return TensorRTExecutor(self.library, self.device, data, self.manifest, logger=Logger(), said=said, **options)


def stage(package="tensorrt", major=11, *, function=linear, profiles=((1, 1, 4), (2, 8, 8)), spec=(X, Y), **device):
    recorded = recording(package, major)
    host = HostDevice(**device)
    network = Network((spec[0],), (spec[1],), profiles, function)
    manifest = Manifest(
        name="tiny",
        target="rtx:sm89" if package == "tensorrt_rtx" else "tensorrt",
        file="engine.plan",
        precision="fp32",
        inputs=(spec[0],),
        outputs=(spec[1],),
        profiles=tuple(Profile(min=a, opt=b, max=c) for a, b, c in profiles),
        preprocess=Preprocess(size=(2, 2)),
        versions={package: recorded["v"]},
        settings={"sm": 89},
    )
    made = library(package, recorded, host, {b"engine": network})
    return Played(device=host, library=made, manifest=manifest, heard=[])
