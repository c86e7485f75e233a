"""Pictures wait for a decoder no longer than they may. A gate stands where the decoder would be, so that no clock decides."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.serve.serving import PATIENCE
from toolkit.serve.decoders import FIRST, Decoders
from toolkit.serve.refused import Refused


def gated():
    """A gate, what counts those that came to it, and the work that waits there."""
    gate, began = threading.Event(), threading.Semaphore(0)

    def work():
        began.release()
        assert gate.wait(PATIENCE)
        return "seen"

    return gate, began, work


def test_a_picture_that_would_wait_too_long_is_refused_at_once_and_the_next_ones_are_not():
    gate, began, work = gated()

    async def run():
        decoders = Decoders(patience=3.5 * FIRST, threads=1)
        asked = [asyncio.create_task(decoders.run(work)) for _ in range(4)]
        await asyncio.sleep(0)
        assert await asyncio.to_thread(began.acquire, timeout=PATIENCE)
        with pytest.raises(Refused, match="4 pictures wait to be decoded") as refused:
            await decoders.run(work)
        assert refused.value.status == 503 and refused.value.headers
        asked[3].cancel()  # its client has gone: it leaves the queue, and another may have its place
        await asyncio.sleep(0)
        asked[3] = asyncio.create_task(decoders.run(work))
        await asyncio.sleep(0)
        gate.set()
        assert await asyncio.gather(*asked) == ["seen"] * 4
        assert decoders._under_way == 0
        decoders.close()
        with pytest.raises(Refused, match="closing"):
            await decoders.run(work)
        assert decoders._under_way == 0

    asyncio.run(run())


def test_what_fails_is_raised_and_leaves_no_place_taken():
    def work():
        raise ValueError("no picture")

    async def run():
        decoders = Decoders(patience=1.0, threads=1)
        for _ in range(300):  # far more than may wait
            with pytest.raises(ValueError, match="no picture"):
                await decoders.run(work)
        decoders.close()

    asyncio.run(run())


def test_a_picture_that_a_free_thread_takes_at_once_is_never_refused():
    """Also where one picture needs longer than a client has patience: it waits for nobody."""
    gate, began, work = gated()

    async def run():
        decoders = Decoders(patience=FIRST / 4, threads=2)
        asked = [asyncio.create_task(decoders.run(work)) for _ in range(2)]
        await asyncio.sleep(0)
        for _ in asked:
            assert await asyncio.to_thread(began.acquire, timeout=PATIENCE)
        with pytest.raises(Refused, match="2 pictures wait to be decoded"):
            await decoders.run(work)
        gate.set()
        assert await asyncio.gather(*asked) == ["seen"] * 2
        decoders.close()

    asyncio.run(run())
