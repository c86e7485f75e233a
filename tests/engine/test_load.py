"""`toolkit.load` on an engine folder, through the real backend, with the played library and a host device in the GPU's place."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

import toolkit
from tests.runtime.playing import answer, stage
from toolkit.backends.tensorrt import library as libraries
from toolkit.disk.files import sha256
from toolkit.errors import ClosedError, DeviceError, EngineError, InputError
from toolkit.testing.host import HostDevice


@pytest.fixture(params=[("tensorrt", 11), ("tensorrt", 10), ("tensorrt_rtx", 1)])
def engine(request, tmp_path, monkeypatch):
    """A folder with a played engine, its stage, and the backend made to find the played library."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    played = stage(*request.param)
    kind = "rtx" if request.param[0] == "tensorrt_rtx" else "tensorrt"
    monkeypatch.setattr(libraries, "load", lambda wanted: libraries.Library(kind, played.library, played.library.__version__))
    folder = tmp_path / "engine"
    folder.mkdir()
    (folder / played.manifest.file).write_bytes(b"engine")
    played.manifest = msgspec.structs.replace(played.manifest, hashes={"file": sha256(folder / played.manifest.file)})
    played.manifest = played.manifest.write(folder)
    return folder, played


def test_it_runs_and_gives_everything_back(engine, images):
    folder, played = engine
    with toolkit.load(folder, device=played.device, contexts=1) as runner:
        for _ in range(3):
            np.testing.assert_allclose(runner(images), answer(images), rtol=1e-5, atol=1e-5)
        with pytest.raises(InputError):
            runner(images[0])
    assert played.device.held() == {}
    assert played.device.closed


def test_kernels_are_kept_for_the_next_load(engine, tmp_path):
    folder, played = engine
    for device in (played.device, HostDevice()):
        played.library._device = device
        toolkit.load(folder, device=device).close()
    kept = list((tmp_path / "cache").rglob("*.bin"))
    assert len(kept) == (played.library.__name__ == "tensorrt_rtx")


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"Engine", lambda data: b""])
def test_a_damaged_file_never_reaches_the_library(engine, damage):
    folder, played = engine
    path = folder / played.manifest.file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(EngineError, match="is not the file that its manifest describes"):
        toolkit.load(folder, device=played.device)
    assert not played.device.closed  # it was not even touched


def test_an_engine_for_another_gpu(engine):
    folder, _ = engine
    with pytest.raises(EngineError, match="was built for sm89; host memory is sm75"):
        toolkit.load(folder, device=HostDevice(sm=75))


def test_a_gpu_too_small(engine):
    folder, played = engine
    device = HostDevice(memory=256)
    played.library._device = device
    with pytest.raises(DeviceError, match="out of memory"):
        toolkit.load(folder, device=device)
    assert device.held() == {}


def test_it_can_be_opened_again_and_not_once_closed(tmp_path):
    pytest.importorskip("onnxruntime")
    from toolkit import orders
    from toolkit.recipe import Recipe

    recipe = Recipe.load(Path(__file__).parents[2] / "engines" / "fashion-resnet18-fp32.toml")
    [(folder, _)] = orders.build_all([recipe], None, tmp_path, proof=False)
    runner = toolkit.load(folder, threads=1)
    assert runner.manifest.settings["threads"] == 1
    batch = np.zeros((2, 1, 28, 28), np.float32)
    before, session = runner(batch), runner.executor
    runner.reopen()
    assert runner.executor is not session
    np.testing.assert_array_equal(runner(batch), before)
    runner.close()
    with pytest.raises(ClosedError, match="cannot be opened again"):
        runner.reopen()
