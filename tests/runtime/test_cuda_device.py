"""CudaDevice, through the real cuda-bindings, on a driver that this test compiles; and each way in which there is none."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.runtime.contract import check
from toolkit.errors import DeviceError, MissingExtra
from toolkit.runtime import device as devices
from toolkit.runtime.cuda import CudaDevice
from toolkit.runtime.pycuda import PyCudaDevice
from toolkit.testing.host import HostDevice

HERE = Path(__file__).parent


def test_the_host_device_keeps_the_contract():
    host = HostDevice()
    check(host)
    assert host.held() == {}


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler and Linux")
    folder = tmp_path_factory.mktemp("driver")
    flags = ["-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", "-o", str(folder / "libcuda.so.1")]
    subprocess.run([compiler, *flags, str(HERE / "fake_cuda.c")], check=True)
    return folder


def run(driver, code, **environment):
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), "PYTHONPATH": paths, **environment}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)


def test_cuda_bindings_keep_the_contract(driver):
    done = run(driver, "import contract; contract.main()")
    assert done.stdout == "the contract holds\n", done.stderr


def test_pycuda_keeps_the_contract(driver):
    if find_spec("pycuda") is None:
        pytest.skip("pycuda is not installed")
    done = run(driver, "import contract; contract.main_pycuda()")
    assert done.stdout == "the contract holds\n", done.stderr


def test_a_driver_without_a_gpu(driver):
    done = run(driver, "from toolkit.runtime.device import best; best()", FAKE_CUDA_DEVICES="0")
    assert "DeviceError: the NVIDIA driver does not start: CUDA_ERROR_NO_DEVICE. Run: nvidia-smi" in done.stderr


def has_driver():
    import ctypes

    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.mark.skipif(has_driver(), reason="this machine has an NVIDIA driver")
def test_no_driver():
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    with pytest.raises(DeviceError, match="this machine has no NVIDIA driver"):
        CudaDevice()
    with pytest.raises(DeviceError, match="this machine has no NVIDIA driver"):
        devices.best()


def test_no_library_at_all(monkeypatch):
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'resnet-deploy\[gpu\]'"):
        devices.best()


def test_pycuda_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises((MissingExtra, DeviceError)):
        PyCudaDevice()
