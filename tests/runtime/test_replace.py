"""A runner whose engine is replaced while others call it, and one that is awaited."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import pytest

from tests.runtime.forking import in_a_fork
from tests.runtime.test_runner import IMAGES, MANIFEST, Means
from toolkit.errors import ClosedError, InputError
from toolkit.recipe import Preprocess
from toolkit.runtime import Runner


class Times(Means):
    """The mean of each channel times `factor`; refuses after `close`, as an executor does."""

    def __init__(self, factor, max_batch=None):
        super().__init__(max_batch)
        self.factor = factor

    def run(self, batch):
        if self.closes:
            raise ClosedError("closed")
        return super().run(batch) * np.float32(self.factor)


def named(name, **changes):
    return msgspec.structs.replace(MANIFEST, name=name, **changes)


def test_calls_are_answered_by_the_new_engine_and_the_old_one_is_closed():
    old, new = Times(1), Times(2, max_batch=4)
    runner, other = Runner(named("old"), old), Runner(named("new"), new)
    runner.replace(other)
    np.testing.assert_array_equal(runner(IMAGES), 2 * IMAGES.mean(axis=(2, 3)))
    assert new.sizes == [4, 4, 3], "the new engine's own limit holds"
    assert (runner.manifest.name, old.closes, new.closes) == ("new", 1, 0)
    with pytest.raises(ClosedError):
        other(IMAGES)
    other.close()
    assert new.closes == 0, "the engine is no longer the other runner's to close"
    runner.close()
    assert new.closes == 1
    with pytest.raises(ClosedError, match="the runner of new is closed"):
        runner(IMAGES)


def test_no_call_is_lost_and_none_is_answered_by_two_engines():
    runner = Runner(named("0"), Times(0, max_batch=2))
    stop, wrong = threading.Event(), []

    def ask():
        while not stop.is_set():
            factors = np.unique(np.round(runner(IMAGES) / IMAGES.mean(axis=(2, 3)), 3))
            if len(factors) != 1:
                wrong.append(factors)

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask) for _ in range(4)]
        for factor in range(1, 200):
            runner.replace(Runner(named(str(factor)), Times(factor, max_batch=2)))
        stop.set()
        for one in asked:
            one.result()
    assert wrong == []
    assert runner.manifest.name == "199"


def test_a_call_that_began_on_an_engine_closed_meanwhile_goes_to_the_new_one():
    entered, go = threading.Event(), threading.Event()

    class Late(Times):
        def run(self, batch):
            entered.set()
            go.wait(60)
            return super().run(batch)

    runner = Runner(named("old"), Late(1))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(runner, IMAGES)
        assert entered.wait(60)
        runner.replace(Runner(named("new"), Times(3)))
        go.set()
        np.testing.assert_array_equal(answer.result(), np.float32(3) * IMAGES.mean(axis=(2, 3)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preprocess": Preprocess(size=(4, 4), color="BGR")}, "preprocess"),
        ({"classes": ("red", "green", "violet")}, "classes"),
        ({"outputs_are": "probabilities"}, "outputs"),
        ({"inputs": (msgspec.structs.replace(MANIFEST.inputs[0], shape=("N", 3, 8, 8)),)}, "input"),
    ],
)
def test_an_engine_that_means_something_else_is_refused(changes, words):
    old, new = Times(1), Times(2)
    runner, other = Runner(MANIFEST, old), Runner(named("new", **changes), new)
    with pytest.raises(InputError, match=f"new cannot replace means: they differ in {words}"):
        runner.replace(other)
    np.testing.assert_array_equal(runner(IMAGES), IMAGES.mean(axis=(2, 3)))
    assert (old.closes, new.closes) == (0, 0)
    assert other.executor is new


def test_closed_runners_and_itself_replace_nothing():
    runner, closed = Runner(MANIFEST, Times(1)), Runner(MANIFEST, Times(2))
    closed.close()
    for one, other in ((runner, closed), (closed, runner), (runner, runner)):
        with pytest.raises(ClosedError, match="cannot be replaced"):
            one.replace(other)
    assert runner(IMAGES).shape == (11, 3)


def test_awaited_calls_leave_the_loop_free_and_get_their_own_answers():
    go = threading.Event()

    class Slow(Times):
        def run(self, batch):
            assert go.wait(60)
            return super().run(batch)

    async def main():
        with Runner(MANIFEST, Slow(1)) as runner:
            asked = [asyncio.create_task(runner.acall(IMAGES[i : i + 1])) for i in range(len(IMAGES))]
            await asyncio.sleep(0)
            go.set()  # the loop runs on, or nobody would come to this
            np.testing.assert_array_equal(np.concatenate(await asyncio.gather(*asked)), IMAGES.mean(axis=(2, 3)))
            with pytest.raises(InputError, match="batch of 0 images"):
                await runner.acall(IMAGES[:0])
        with pytest.raises(ClosedError):
            await runner.acall(IMAGES)

    asyncio.run(main())


def test_a_cancelled_call_that_waits_for_its_turn_is_not_run():
    go = threading.Event()
    executor = Times(1)
    inner = executor.run
    executor.run = lambda batch: go.wait(60) and inner(batch)

    async def main():
        with Runner(MANIFEST, executor) as runner:
            asked = [asyncio.create_task(runner.acall(IMAGES[i % 11 :][:1])) for i in range(300)]
            await asyncio.sleep(0)  # each of them waits for a thread
            asked[-1].cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked[-1]  # a loop hands a cancellation on in its next turn: before that the threads must stand still
            go.set()
            await asyncio.gather(*asked[:-1])
            assert len(executor.sizes) == 299

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_in_a_forked_process_an_awaited_call_says_so():
    runner = Runner(MANIFEST, Times(1))
    asyncio.run(runner.acall(IMAGES))

    def child():
        with pytest.raises(ClosedError, match="forked from"):
            asyncio.run(runner.acall(IMAGES))

    assert in_a_fork(child) == 0


def test_a_runner_brings_no_event_loop_before_it_is_awaited():
    code = "import sys, toolkit.runtime; sys.exit('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
