"""What `toolkit handoff triton` wrote, in a real tritonserver, asked by the real tritonclient over HTTP and gRPC."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from toolkit.engine.engine import Engine
from toolkit.errors import BackendError
from toolkit.handoff.triton import to_triton
from toolkit.images.picture import preprocess
from toolkit.testing.tritonserver import python_of_triton, pytriton, serving

HERE = Path(__file__).parent


class Asked(NamedTuple):
    answers: dict[str, Any]
    batch: Any
    pictures: list[Path]
    addresses: tuple[str, str]
    repository: Path


@pytest.fixture(scope="module")
def asked(golden: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    try:
        pytriton()
    except BackendError as error:
        pytest.skip(str(error))
    work = tmp_path_factory.mktemp("triton")
    (work / "asked").mkdir()
    generator = np.random.default_rng(0)
    batch = generator.normal(size=(24, 1, 28, 28)).astype(np.float32)
    np.save(work / "asked" / "batch.npy", batch)
    for index in range(6):
        pixels = generator.integers(0, 256, (40, 30 + index, 3), np.uint8)
        Image.fromarray(pixels).save(work / "asked" / f"{index}.png")
    to_triton([golden], work / "repository", backend="python")
    with serving(work / "repository", work) as (http, grpc, _):
        command = [python_of_triton(), str(HERE / "ask_triton.py"), http, grpc, golden.name, str(work / "asked")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        answers = dict(np.load(work / "asked" / "answers.npz"))
        yield Asked(answers, batch, sorted((work / "asked").glob("*.png")), (http, grpc), work / "repository")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tensors_are_answered_as_by_the_runner(asked: Asked, golden: Engine, protocol: str) -> None:
    with golden.runner() as runner:
        np.testing.assert_array_equal(asked.answers[f"{protocol}-batch"], runner(asked.batch))
        alone = np.concatenate([runner(image[None]) for image in asked.batch])
    np.testing.assert_array_equal(asked.answers[f"{protocol}-alone"], alone)


def test_callers_at_once_are_answered_each_with_its_own(asked: Asked, golden: Engine) -> None:
    """Triton puts them into batches of sizes that nobody knows; a kernel's last bit may depend on them."""
    with golden.runner() as runner:
        np.testing.assert_allclose(
            asked.answers["crowd"], runner(asked.batch), rtol=0, atol=1e-4 * np.abs(runner(asked.batch)).max()
        )


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_pictures_are_answered_as_by_the_runner(asked: Asked, golden: Engine, protocol: str) -> None:
    images = np.stack([preprocess(path, golden.manifest.preprocess) for path in asked.pictures])
    with golden.runner() as runner:
        alone = np.concatenate([runner(image[None]) for image in images])
        np.testing.assert_array_equal(asked.answers[f"{protocol}-many-pictures"], runner(images))
        best = runner.classify(asked.pictures[0], top=2)[0]
    np.testing.assert_array_equal(asked.answers[f"{protocol}-pictures"], alone)
    labels = [text.split(":", 2)[2] for text in asked.answers[f"{protocol}-labels"]]
    assert labels == [one.label for one in best]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_bad_requests_get_their_reason(asked: Asked, protocol: str) -> None:
    assert "cannot be read as an image" in str(asked.answers[f"{protocol}-bad picture"])
    assert "shape" in str(asked.answers[f"{protocol}-bad shape"])


@pytest.mark.parametrize("grpc", [False, True])
def test_the_client_script_of_the_repository(asked: Asked, golden: Engine, grpc: bool) -> None:
    more = ["--grpc"] if grpc else []
    command = [python_of_triton(), str(asked.repository / "client.py"), "--url", asked.addresses[grpc], *more]
    done = subprocess.run([*command, str(asked.pictures[0])], capture_output=True, text=True, timeout=120, check=False)
    with golden.runner() as runner:
        best = runner.classify(asked.pictures[0], top=5)[0]
    assert done.stdout.strip().split("  ")[0] == str(asked.pictures[0]), done.stderr
    assert [part.split(":", 2)[2] for part in done.stdout.strip().split("  ")[1:]] == [one.label for one in best]


def test_the_example_asks_it(asked: Asked, golden: Engine) -> None:
    command = [python_of_triton(), str(HERE.parents[1] / "examples" / "triton_client.py"), asked.addresses[0], str(golden.path)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(
        [*command, *map(str, asked.pictures)], capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    with golden.runner() as runner:
        best = [f"{one[0].label} {one[0].probability:.1%}" for one in runner.classify(asked.pictures)]
    assert [line.split("  ")[1] for line in done.stdout.splitlines()] == best, done.stderr
