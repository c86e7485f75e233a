"""Hot swap under load: by a signal, by watching and by an order; no call lost, and each answered by one whole engine."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.serve.conftest import QUICK
from tests.serve.serving import Server, infer, logits_of
from toolkit.engine.engine import Engine
from toolkit.manifest import Manifest
from toolkit.serve.limits import Settings, Source
from toolkit.serve.metrics import Metrics
from toolkit.serve.models import Models


@pytest.fixture
def place(engines, tmp_path):
    shutil.copytree(engines / "fp32", tmp_path / "engine")
    return tmp_path / "engine"


def put(engines, kind, place):
    """As a build does it: a whole folder in one step."""
    new = place.with_name("new")
    shutil.copytree(engines / kind, new)
    old = place.with_name("old")
    os.rename(place, old)
    os.rename(new, place)
    shutil.rmtree(old)


class Asking:
    """Clients that ask until they are told to stop. Every answer must be that of the engine that its seal names."""

    def __init__(self, server, engines, images, offline, clients=6):
        self.seals = {Manifest.read(engines / kind).seal[:16]: offline[kind] for kind in offline}
        self.server, self.images = server, images
        self.stop, self.wrong, self.seen = threading.Event(), [], set()
        self.threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(clients)]

    def _ask(self, i):
        while not self.stop.is_set():
            i = (i + 7) % 60
            try:
                reply = self.server.ask("POST", "/v2/models/net/infer", infer(self.images[i : i + 2]))
                seal = reply.headers["engine-seal"]
                if reply.status != 200 or not np.array_equal(logits_of(reply), self.seals[seal][i : i + 2]):
                    self.wrong.append((reply.status, reply.body[:200]))
                self.seen.add(seal)
            except Exception as error:
                self.wrong.append(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def test_sighup_swaps_what_was_replaced_and_loses_no_call(engines, place, images, offline):
    with Server(f"net={place}", *QUICK) as server, Asking(server, engines, images, offline) as asking:
        for kind in ("fp16", "fp32", "fp16"):
            put(engines, kind, place)
            server.hear(signal.SIGHUP)
            assert server.wait_for("model replaced")["seal"] == Manifest.read(place).seal[:16]
            reply = server.ask("POST", "/v2/models/net/infer", infer(images[:1]))
            np.testing.assert_array_equal(logits_of(reply), offline[kind][:1])
        asking.stop.set()
        for thread in asking.threads:
            thread.join()
        assert asking.wrong == []
        assert len(asking.seen) == 2
        assert "toolkit_swaps_total{" in server.ask("GET", "/metrics").body.decode()
        assert server.ask("GET", "/status").json["models"][0]["swaps"] == 3
        assert server.stop() == 0


def test_a_watched_folder_is_swapped_by_itself_and_a_bad_one_is_not(engines, place, images, offline):
    with Server(f"net={place}", *QUICK, "--watch", "0.1") as server:
        put(engines, "fp16", place)
        server.wait_for("model replaced")
        shutil.rmtree(place)
        assert "is not an engine" in server.wait_for("engine not replaced")["reason"]
        reply = server.ask("POST", "/v2/models/net/infer", infer(images[:3]))
        np.testing.assert_array_equal(logits_of(reply), offline["fp16"][:3])
        shutil.copytree(engines / "fp32", place)
        server.wait_for("model replaced")
        reply = server.ask("POST", "/v2/models/net/infer", infer(images[:3]))
        np.testing.assert_array_equal(logits_of(reply), offline["fp32"][:3])


def test_an_order_outlasts_its_request(engines, place, images, offline):
    """An engine that takes longer to open than a request may take: it is put in place all the same, and not lost."""
    with Server(f"net={place}", *QUICK, "--admin", "--seconds", "0.1") as server:
        put(engines, "fp16", place)
        assert server.ask("POST", "/v2/repository/models/net/load", b"").status in (200, 504)
        server.wait_for("model replaced")
        reply = server.ask("POST", "/v2/models/net/infer", infer(images[:1]))
        assert reply.headers["engine-seal"] == Manifest.read(place).seal[:16]


def test_a_watched_packed_engine_is_swapped(engines, tmp_path, images, offline):
    packed = Engine.open(engines / "fp32").pack(tmp_path / "x.engine")
    with Server(f"net={packed}", *QUICK, "--watch", "0.1") as server:
        packed.write_bytes(packed.read_bytes()[:-100])
        assert "is damaged" in server.wait_for("engine not replaced")["reason"]
        Engine.open(engines / "fp16").pack(packed)
        server.wait_for("model replaced")
        reply = server.ask("POST", "/v2/models/net/infer", infer(images[:3]))
        np.testing.assert_array_equal(logits_of(reply), offline["fp16"][:3])


def test_an_engine_that_was_unloaded_meanwhile_is_not_brought_back_by_a_look(engines, place):
    """A look at the folder finds another engine; before that is loaded, somebody orders that none serves."""

    async def act():
        settings = Settings(sources=(Source(path=place, name="net"),), max_batch=2, max_wait=0.001)
        models = Models(settings, Metrics())
        models.open()
        (model,) = models
        put(engines, "fp16", place)
        async with models._order:
            unloading = asyncio.create_task(models.unload(model))
            await asyncio.sleep(0)  # it waits for its turn
            looking = asyncio.create_task(models.refresh())
            await asyncio.sleep(0.5)  # it has read the manifest, and waits behind it
        await asyncio.gather(unloading, looking)
        return model.live

    assert asyncio.run(act()) is None


def test_tritonclient_loads_and_unloads(engines, place, images, offline):
    with Server(f"net={place}", *QUICK, "--admin") as server, triton.InferenceServerClient(server.address) as client:
        given = triton.InferInput("input", [2, 1, 28, 28], "FP32")
        given.set_data_from_numpy(images[:2])
        put(engines, "fp16", place)
        client.load_model("net")
        np.testing.assert_array_equal(client.infer("net", [given]).as_numpy("logits"), offline["fp16"][:2])
        with pytest.raises(InferenceServerException, match="nothing to configure"):
            client.load_model("net", config="{}")
        with pytest.raises(InferenceServerException, match="nothing at this path"):
            client.load_model("../engine")
        client.unload_model("net")
        assert not client.is_model_ready("net")
        assert not client.is_server_ready()
        assert client.get_model_repository_index()[0]["state"] == "UNAVAILABLE"
        with pytest.raises(InferenceServerException, match="is not loaded"):
            client.infer("net", [given])
        shutil.rmtree(place)
        with pytest.raises(InferenceServerException, match="was not loaded"):
            client.load_model("net")
        shutil.copytree(engines / "fp32", place)
        client.load_model("net")
        np.testing.assert_array_equal(client.infer("net", [given]).as_numpy("logits"), offline["fp32"][:2])
        for header in ("Origin", "Sec-Fetch-Site", "X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"):
            reply = server.ask("POST", "/v2/repository/models/net/unload", b"", {header: "http://evil.example"})
            assert (reply.status, "not through a browser" in reply.error) == (403, True)
        assert client.is_model_ready("net")
