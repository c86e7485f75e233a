"""Batcher: right answers to the right callers under threads, and what happens at the edges. No test depends on speed."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from tests.runtime.forking import in_a_fork
from toolkit.errors import BusyError, ClosedError, InputError
from toolkit.runtime.batcher import Batcher, Ran
from toolkit.types import Array, Float

FOREVER = 60.0  # a wait that no passing test sits out


def double(batch: Array) -> Float:
    return np.stack([batch[:, 0], 2 * batch[:, 0]], axis=1)


def image(value: float) -> Array:
    return np.array([value], np.float32)


@pytest.mark.parametrize("workers", [1, 3])
def test_every_caller_gets_its_own_answer(workers: int) -> None:
    with Batcher(double, max_batch=7, max_wait=0.001, workers=workers) as batcher, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: batcher(image(i)), range(500)))
    np.testing.assert_array_equal(np.stack(answers), double(np.arange(500, dtype=np.float32)[:, None]))


def test_a_full_batch_does_not_wait() -> None:
    sizes = []

    def run(batch: Array) -> Float:
        sizes.append(len(batch))
        return double(batch)

    with Batcher(run, max_batch=4, max_wait=FOREVER) as batcher:
        for answer in [batcher.submit(image(i)) for i in range(8)]:
            answer.result(timeout=FOREVER / 2)
    assert sizes == [4, 4]


def test_a_lone_image_leaves_after_max_wait() -> None:
    with Batcher(double, max_batch=32, max_wait=0.0) as batcher:
        assert batcher(image(3)).tolist() == [3, 6]


def test_close_answers_what_was_taken_and_refuses_the_rest() -> None:
    batcher = Batcher(double, max_batch=32, max_wait=FOREVER)
    answers = [batcher.submit(image(i)) for i in range(5)]
    batcher.close()
    batcher.close()
    assert [a.result(timeout=0)[1] for a in answers] == [0, 2, 4, 6, 8]
    with pytest.raises(ClosedError):
        batcher.submit(image(1))


def test_close_inside_an_answers_callback_does_not_lock_up() -> None:
    batcher = Batcher(double, max_batch=1, max_wait=0.0)
    done = threading.Event()

    def close(_: Future[Float]) -> None:
        batcher.close()
        done.set()

    batcher.submit(image(1)).add_done_callback(close)
    assert done.wait(FOREVER)


def test_only_the_caller_at_fault_gets_the_error() -> None:
    def picky(batch: Array) -> Float:
        if (batch < 0).any():
            raise ValueError("negative")
        return double(batch)

    with Batcher(picky, max_batch=4, max_wait=FOREVER) as batcher:
        answers = [batcher.submit(image(v)) for v in (1, -1, 2, 3)]
        with pytest.raises(ValueError, match="negative"):
            answers[1].result()
        assert [answers[i].result()[0] for i in (0, 2, 3)] == [1, 2, 3]
        odd = [batcher.submit(a) for a in (image(4), np.float32(0), image(5), image(6))]
        with pytest.raises(IndexError):
            odd[1].result()
        assert odd[3].result()[0] == 6


def test_an_answer_of_another_length_is_an_error_and_the_batcher_lives() -> None:
    short = threading.Event()

    def run(batch: Array) -> Float:
        return double(batch)[:0] if short.is_set() else double(batch)

    with Batcher(run, max_batch=2, max_wait=0.0) as batcher:
        short.set()
        with pytest.raises(InputError, match="answered by an array of shape"):
            batcher(image(1))
        short.clear()
        assert batcher(image(2))[0] == 2


def test_a_cancelled_image_is_not_run() -> None:
    seen: list[float] = []
    gate = threading.Event()

    def run(batch: Array) -> Float:
        gate.wait(FOREVER)
        seen.extend(batch[:, 0])
        return double(batch)

    with Batcher(run, max_batch=1, max_wait=0.0) as batcher:
        first, second, third = (batcher.submit(image(i)) for i in range(3))
        assert second.cancel()
        gate.set()
        assert first.result()[0] == 0
        assert third.result()[0] == 2
    assert seen == [0, 2]


@pytest.mark.parametrize("wait", [float("inf"), 1e300])
def test_a_batcher_without_end_to_its_patience_waits_for_a_full_batch(wait: float) -> None:
    with Batcher(double, max_batch=2, max_wait=wait) as batcher:
        first = batcher.submit(image(1))
        second = batcher.submit(image(2))
        assert [a.result(timeout=FOREVER)[1] for a in (first, second)] == [2, 4]
        rest = batcher.submit(image(3))
    assert rest.result(timeout=0)[1] == 6, "close answers what waits"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_batcher_says_so_and_closes() -> None:
    with Batcher(double, max_batch=2, max_wait=FOREVER) as batcher:
        waiting = batcher.submit(image(1))

        def child() -> None:
            with pytest.raises(ClosedError, match=r"forked from\. Make a new one"):
                batcher.submit(image(2))
            batcher.close()
            with Batcher(double, max_batch=1) as own:
                assert own(image(4))[1] == 8

        assert in_a_fork(child) == 0
        assert batcher.submit(image(3)).result(timeout=FOREVER)[1] == 6
        assert waiting.result(timeout=FOREVER)[1] == 2


def test_a_batcher_is_not_pickled() -> None:
    with Batcher(double) as batcher, pytest.raises(InputError, match="Make one in each process"):
        pickle.dumps(batcher)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_batch": 0}, {"workers": 0}, {"max_wait": -1.0}, {"max_wait": float("nan")}, {"max_wait": "1"}, {"max_batch": 1.5},
        {"max_waiting": 0}, {"max_waiting": 1.5},
    ],
)
def test_settings_that_cannot_work(settings: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Batcher(double, **settings)  # type: ignore[arg-type]


def test_a_callers_batch_stays_together_and_gets_its_own_rows() -> None:
    sizes: list[int] = []

    def run(batch: Array) -> Float:
        sizes.append(len(batch))
        return double(batch)

    groups = [np.arange(n, dtype=np.float32)[:, None] + 10 * i for i, n in enumerate((3, 2, 5, 9, 1))]
    with Batcher(run, max_batch=5, max_wait=FOREVER) as batcher:
        answers = [batcher.submit_batch(group) for group in groups]
        answers.append(batcher.submit(image(7)))
    for group, answer in zip(groups, answers[:-1], strict=True):
        np.testing.assert_array_equal(answer.result(timeout=0), double(group))
    assert answers[-1].result(timeout=0).tolist() == [7, 14]
    assert sizes == [5, 5, 9, 2], "3 + 2 share one, 9 are more than a batch and go alone"


@pytest.mark.parametrize("nothing", [np.empty((0, 1), np.float32), np.float32(1)])
def test_a_batch_of_nothing_is_refused(nothing: Array) -> None:
    with Batcher(double) as batcher, pytest.raises(InputError, match="batch of 0 images"):
        batcher.submit_batch(nothing)


def test_a_full_queue_refuses_at_once_and_recovers() -> None:
    gate, began = threading.Event(), threading.Event()

    def run(batch: Array) -> Float:
        began.set()
        gate.wait(FOREVER)
        return double(batch)

    with Batcher(run, max_batch=1, max_wait=0.0, max_waiting=2) as batcher:
        running = batcher.submit(image(0))
        assert began.wait(FOREVER)
        waiting = [batcher.submit(image(1)), batcher.submit(image(2))]
        assert batcher.waiting == 2
        for ask in (lambda: batcher.submit(image(3)), lambda: batcher.submit_batch(np.zeros((1, 1), np.float32))):
            with pytest.raises(BusyError, match="2 images wait already, and the queue holds 2"):
                ask()
        gate.set()
        assert [answer.result(timeout=FOREVER)[1] for answer in (running, *waiting)] == [0, 2, 4]
        assert batcher.submit_batch(np.ones((5, 1), np.float32)).result(timeout=FOREVER).shape == (5, 2), "none waits: any size"
        assert batcher.waiting == 0


def test_it_tells_of_each_batch_that_it_ran() -> None:
    seen: list[Ran] = []
    with Batcher(double, max_batch=3, max_wait=FOREVER, ran=seen.append) as batcher:
        for answer in [batcher.submit(image(i)) for i in range(3)]:
            answer.result(timeout=FOREVER)
        assert [(ran.images, len(ran.waited)) for ran in seen] == [(3, 3)]
        assert min(*seen[0].waited, seen[0].took) >= 0
        batcher.submit_batch(np.zeros((2, 1), np.float32))
    assert [(ran.images, len(ran.waited)) for ran in seen] == [(3, 3), (2, 1)]
