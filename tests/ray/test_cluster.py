"""A cluster of two nodes, and what dies in it: a worker halfway, and the whole job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("ray") is None:  # not imported yet: its import warns
    pytest.skip("the ray extra is not installed", allow_module_level=True)

from tests.ray.conftest import Pictures
from tests.ray.test_classify import check, read
from toolkit.engine.engine import Engine
from toolkit.ray import Summary, classify

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of Ray's own


@pytest.fixture
def address() -> Iterator[str]:
    """Two nodes of two cores each."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


def runners() -> list[tuple[str, int]]:
    """(node, process) of each actor that is alive."""
    import ray

    actors = ray._private.state.actors().values()
    alive = [one for one in actors if one["State"] == "ALIVE" and "MapWorker" in one["ActorClassName"]]
    return [(one["Address"]["NodeID"], one["Pid"]) for one in alive]


def test_a_worker_is_killed_halfway(address: str, golden: Engine, pictures: Pictures, tmp_path: Path) -> None:
    import ray

    ray.init(address=address, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    found: list[Summary] = []
    job = threading.Thread(target=lambda: found.append(classify(pictures.folder, golden, tmp_path, actors=4, batch=2, part=4)))
    job.start()
    nodes: set[str] = set()
    killed = 0
    end = time.monotonic() + 240
    while job.is_alive() and time.monotonic() < end:
        alive = runners()
        nodes |= {node for node, _ in alive}
        if not killed and len(alive) > 1 and list(tmp_path.glob("*.parquet")):  # some answers are there, others are not
            killed = alive[0][1]
            os.kill(killed, signal.SIGKILL)
        time.sleep(0.02)
    job.join(60)
    assert killed and len(nodes) == 2, "no worker was killed, or only one node worked"
    (summary,) = found
    assert (summary.answered, summary.again) == (91, 0)
    check(read(tmp_path), golden, pictures.files)


SCRIPT = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
from toolkit.ray import classify
classify(sys.argv[2], sys.argv[3], sys.argv[4], actors=2, batch=2, part=4)
"""


def test_the_job_is_killed_halfway_and_started_again(address: str, golden: Engine, pictures: Pictures, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, address, str(pictures.folder), str(golden.path), str(tmp_path)]
    job = subprocess.Popen(command, env=dict(os.environ), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 240
    while job.poll() is None and len(list(tmp_path.glob("*.parquet"))) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    job.kill()
    job.wait()
    before = len(read(tmp_path))
    assert 0 < before < 91, "it was killed too early or too late"
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    check(read(tmp_path), golden, pictures.files)
