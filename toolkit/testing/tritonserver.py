"""A real tritonserver, where one can be had without a container: the one inside the wheel `nvidia-pytriton`.

That wheel wants an older numpy than the toolkit's tests, so it lives in an environment of its own:

    python3.11 -m venv triton && triton/bin/pip install nvidia-pytriton onnxruntime Pillow msgspec 'tritonclient[http,grpc]'
    TRITON_PYTHON=triton/bin/python python -m pytest tests/handoff/test_tritonserver.py

Its server has the Python backend and ensembles, no ONNX Runtime and no TensorRT.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import toolkit
from toolkit.errors import BackendError, ToolkitError

WANTED = ("pytriton", "onnxruntime", "PIL", "msgspec", "tritonclient.http", "tritonclient.grpc")
SCRIPT = f"import importlib; print([importlib.import_module(name) for name in {WANTED}][0].__path__[0])"


def python_of_triton() -> str:
    return os.environ.get("TRITON_PYTHON", sys.executable)


def pytriton() -> Path:
    """The wheel's folder. Raises BackendError, with the reason, where there is none."""
    done = subprocess.run([python_of_triton(), "-c", SCRIPT], capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it ends without a word"])[-1]
        raise BackendError(f"no tritonserver: {why}", remedy="Name in TRITON_PYTHON the Python of one that has nvidia-pytriton")
    return Path(done.stdout.strip().splitlines()[-1])


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def backends(wheel: Path, folder: Path) -> Path:
    """A folder of backends whose Python is the one in the environment, and imports this very toolkit."""
    version = subprocess.run(
        [python_of_triton(), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    shutil.copytree(wheel / "tritonserver" / "backends", folder)
    shutil.copy(wheel / "tritonserver" / "python_backend_stubs" / version / "triton_python_backend_stub", folder / "python")
    os.symlink(Path(toolkit.__file__).parent, folder / "python" / "toolkit")
    return folder


@contextmanager
def serving(repository: Path, work: Path, *options: str, port: int | None = None) -> Iterator[tuple[str, str, Path]]:
    """(HTTP address, gRPC address, log) of a server that is ready; ended afterwards. HTTP is at `port` (absent: a free one)."""
    wheel = pytriton()
    free, grpc, metrics = free_ports(3)
    http = port or free
    log = work / "triton.log"
    bin_ = Path(python_of_triton()).parent
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(wheel.parent / "nvidia_pytriton.libs"),
        "PATH": f"{bin_}:{os.environ['PATH']}",
    }
    command = [
        wheel / "tritonserver" / "bin" / "tritonserver",
        f"--model-repository={repository}", f"--backend-directory={backends(wheel, work / 'backends')}",
        "--http-address=127.0.0.1", "--grpc-address=127.0.0.1",
        f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}", *options,
    ]  # fmt: skip
    with log.open("w") as file:
        server = subprocess.Popen([*map(str, command)], stdout=file, stderr=subprocess.STDOUT, env=environment)
        try:
            wait(server, f"http://127.0.0.1:{http}/v2/health/ready", log)
            yield f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", log
        finally:
            server.terminate()
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if server.poll() is not None:
            raise ToolkitError(f"tritonserver ended: {log.read_text()[-1500:]}")
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise ToolkitError(f"tritonserver is not ready: {log.read_text()[-1500:]}")
