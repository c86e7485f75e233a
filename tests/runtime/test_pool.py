import threading

import pytest

from toolkit.errors import ClosedError
from toolkit.runtime.pool import Pool


def pool(limit=2, **options):
    made, ended = [], []

    def make():
        made.append(len(made))
        return made[-1]

    return Pool(options.get("make", make), ended.append, limit, "it"), made, ended


def test_makes_only_what_is_wanted_and_no_more_than_the_limit():
    it, made, ended = pool()
    first = it.acquire()
    it.release(first)
    assert it.acquire() == first
    second = it.acquire()
    assert it.try_acquire() is None
    assert made == [first, second]
    it.release(first)
    it.release(second)
    assert it.close()
    assert sorted(ended) == made


def test_a_limit_of_none_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        pool(0)


def test_a_make_that_fails_leaves_room_for_the_next():
    outcomes = iter([RuntimeError("no memory"), "thing"])

    def make():
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    it, _, ended = pool(1, make=make)
    with pytest.raises(RuntimeError):
        it.acquire()
    it.release(it.acquire())
    it.close()
    assert ended == ["thing"]


def test_a_discarded_thing_is_ended_and_replaced():
    it, made, ended = pool(1)
    it.discard(it.acquire())
    assert ended == [0]
    assert it.acquire() == 1
    assert made == [0, 1]


def test_threads_never_share_a_thing():
    it, made, _ = pool(3)
    held, clashes, lock = set(), [], threading.Lock()

    def work():
        for _ in range(300):
            thing = it.acquire()
            with lock:
                if thing in held:
                    clashes.append(thing)
                held.add(thing)
            with lock:
                held.discard(thing)
            it.release(thing)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clashes == []
    assert len(made) <= 3


def test_every_close_returns_after_the_things_are_ended_once():
    it, _, ended = pool(2)
    thing = it.acquire()
    firsts = []
    closers = [threading.Thread(target=lambda: firsts.append(it.close())) for _ in range(4)]
    for thread in closers:
        thread.start()
    while not it._closing:
        pass
    assert it.try_acquire() is None
    with pytest.raises(ClosedError, match="it is closed"):
        it.acquire()
    assert ended == []
    it.release(thing)
    for thread in closers:
        thread.join(20)
    assert ended == [thing]
    assert sorted(firsts) == [False, False, False, True]
