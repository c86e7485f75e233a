"""Serving under load, on loopback: the toolkit's server beside what is written by hand, on the same engine and threads.

    .venv/bin/python benchmarks/serving.py engines/built/fashion-resnet18-int8 --seconds 60

A second process keeps 16 connections busy, each asking again as soon as it is answered, and compares every answer with the
one that the engine gave to the same image where no server was. Each server has its turn in rounds of a shuffled order; the
engine's own rate at its best batch, with as many calls at once as pay, is taken in the same rounds, without any server. What is
kept: latencies, throughput, wrong answers, errors, and how the memory of the server's processes grew after the first fifth. Raw
figures go to benchmarks/results/serving-NAME-DEVICE.json, the table beside it as Markdown.

Peers get an environment of their own, .peers/serving, made on the first run: FastAPI with ONNX Runtime in a thread, LitServe.
Where TRITON_PYTHON names an environment with nvidia-pytriton (see toolkit/testing/tritonserver.py), its tritonserver is one more:
the same engine and batching in Triton's Python backend, as `toolkit handoff triton` writes it.
`--quick` is 10 seconds in all, to see that everything works. Clients and servers share this machine's cores: the processor
time of both is stated, and on few cores the client's is much of what keeps throughput below the engine's own rate.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import platform
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import shuffled

HERE = Path(__file__).parent
IMAGES = 256
PEERS = ("fastapi", "litserve", "triton")
PACKAGES = ("fastapi", "litserve", "uvicorn", "httptools", "uvloop", "onnxruntime", "numpy")


# the client, in a process of its own


async def connection(
    port: int, requests: list[bytes], answers: list[bytes], start: int, until: float, out: dict[str, Any]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    i = start
    while (begin := time.perf_counter_ns()) * 1e-9 < until:
        i = (i + 1) % len(requests)
        writer.write(requests[i])
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)[1])  # type: ignore[index]
        body = await reader.readexactly(length)
        took = time.perf_counter_ns() - begin
        if not head.startswith(b"HTTP/1.1 200"):
            out["errors"].append(body[:200].decode(errors="replace"))
            continue
        out["latencies"].append(took)
        out["wrong"] += not body.endswith(answers[i])
    writer.close()


async def load(port: int, path: str, folder: Path, connections: int, seconds: float) -> dict[str, Any]:
    images, logits = np.load(folder / "images.npy"), np.load(folder / "logits.npy")
    name = (folder / "input").read_text()
    requests = [request(path, name, image) for image in images]
    answers = [row.tobytes() for row in logits]
    if path == "/predict":
        answers = [base64.b64encode(row) + b'"}' for row in answers]
    out: dict[str, Any] = {"latencies": [], "errors": [], "wrong": 0}
    begin = time.perf_counter()
    until = begin + seconds
    step = len(images) // connections
    await asyncio.gather(*(connection(port, requests, answers, n * step, until, out) for n in range(connections)))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {**out, "seconds": time.perf_counter() - begin, "client_cpu": used.ru_utime + used.ru_stime}


def request(path: str, name: str, image: np.ndarray) -> bytes:
    data = image.tobytes()
    if path.startswith("/v2"):
        tensor = {"name": name, "shape": [1, *image.shape], "datatype": "FP32", "parameters": {"binary_data_size": len(data)}}
        text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        more = b"Inference-Header-Content-Length: %d\r\n" % len(text)
    elif path == "/predict":  # LitServe, which takes JSON
        text, more = json.dumps({"image": base64.b64encode(data).decode()}).encode(), b"Content-Type: application/json\r\n"
        data = b""
    else:
        text, more = b"", b""
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n" % (path.encode(), more, len(text) + len(data))
    return head + text + data


# the servers


class Served:
    """A server in a process of its own, and what its processes hold of memory."""

    def __init__(self, name: str, command: list[str], port: int, path: str) -> None:
        self.name, self.path, self.port = name, path, port
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            with suppress(OSError), open_http(port) as answer:
                if answer:
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.2)
        self.close()
        raise SystemExit(f"{name} does not start: {' '.join(command)}")

    def memory(self) -> int:
        """Bytes that all processes of its session hold (proportional, so that what they share counts once)."""
        total = 0
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, ValueError, ProcessLookupError):
                if os.getsid(int(folder.name)) == self.process.pid:
                    total += int(re.search(r"Pss:\s+(\d+)", (folder / "smaps_rollup").read_text())[1]) << 10  # type: ignore[index]
        return total

    def cpu(self) -> float:
        total = 0.0
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, ValueError, ProcessLookupError):
                if os.getsid(int(folder.name)) == self.process.pid:
                    words = (folder / "stat").read_text().rpartition(")")[2].split()
                    total += (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
        return total

    def load(self, folder: Path, connections: int, seconds: float) -> dict[str, Any]:
        command = [sys.executable, __file__, "--client", str(self.port), self.path, str(folder), str(connections), str(seconds)]
        before = self.cpu()
        memory = []
        with tempfile.TemporaryFile() as said:  # a minute of latencies fills a pipe
            client = subprocess.Popen(command, stdout=said)
            while client.poll() is None:
                memory.append(self.memory())
                with suppress(subprocess.TimeoutExpired):
                    client.wait(max(0.2, seconds / 20))
            if client.returncode:
                raise SystemExit(f"{self.name}: the client ended with {client.returncode}")
            said.seek(0)
            return {**json.load(said), "memory": memory, "server_cpu": self.cpu() - before}

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


class open_http:
    """Whether something answers HTTP there."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __enter__(self) -> bool:
        import http.client

        self.line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        self.line.request("GET", "/v2/health/ready")
        return self.line.getresponse().status in (200, 404)  # a peer has no such path

    def __exit__(self, *_: object) -> None:
        self.line.close()


def free_port() -> int:
    import socket

    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return int(line.getsockname()[1])


def start(name: str, engine: Path, folder: Path, threads: int, batch: int, wait: float, python: str) -> Served:
    port = free_port()
    if name.startswith("toolkit"):
        words = ["--port", str(port), "--threads", str(threads)]
        if "wait" in name:
            words += ["--max-wait-ms", name.split("wait ")[1].split()[0]]
        if "workers" in name:
            words += ["--workers", name.split()[1]]
        command = [sys.executable, "-m", "toolkit", "serve", f"net={engine}", *words]
        return Served(name, command, port, "/v2/models/net/infer")
    if name == "triton":
        from toolkit.engine.engine import Engine

        command = [sys.executable, str(HERE / "serving_triton.py"), str(engine), str(port), str(batch), str(wait * 1e3)]
        return Served(name, command, port, f"/v2/models/{Engine.open(engine).name}/infer")
    words = [name, str(folder / "model.onnx"), str(port), str(threads), str(batch), str(wait * 1e3)]
    path = "/predict" if name == "litserve" else "/infer"
    return Served(name, [python, str(HERE / "serving_peers.py"), *words], port, path)


def peers_python() -> str:
    """Of an environment that has the peers."""
    folder = HERE.parent / ".peers" / "serving"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return str(python)


# the engine alone


def offline(engine: Path, threads: int, folder: Path) -> Any:
    """The runner, and how the server would batch for it; its images and their answers go into the folder."""
    from toolkit.engine.engine import Engine
    from toolkit.serve.sweep import sweep
    from toolkit.types import noise

    opened = Engine.open(engine)
    (folder / "model.onnx").write_bytes(opened.contents[opened.manifest.file])  # for peers, which know no engines
    runner = opened.runner(threads=threads)
    images = noise(runner.manifest.inputs[0], IMAGES)
    np.save(folder / "images.npy", images)
    (folder / "input").write_text(runner.manifest.inputs[0].name)
    np.save(folder / "logits.npy", np.concatenate([runner(images[i : i + 1]) for i in range(IMAGES)]))
    return runner, sweep(runner, 0.05)


# the trial


def trial(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from toolkit.serve.sweep import rate

    runner, batching = offline(args.engine, args.threads, folder)
    python = args.peers_python or (peers_python() if args.peers else "")
    more = [*(f"toolkit, {count} workers" for count in args.workers), *(f"toolkit, wait {wait:g} ms" for wait in args.waits)]
    names = ["toolkit", *more, *args.peers]
    seconds = args.seconds / args.rounds
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    rates: list[float] = []
    for _, name in shuffled(names, args.rounds):
        rates.append(rate(runner, max(batching.preferred), batching.instances, min(2.0, seconds)))
        served = start(name, args.engine, folder, args.threads, max(batching.preferred), batching.max_wait, python)
        try:
            served.load(folder, args.connections, min(3.0, seconds))  # warm-up
            found[name].append(served.load(folder, args.connections, seconds))
        finally:
            served.close()
    return {
        "engine": runner.manifest.name,
        "threads": args.threads,
        "connections": args.connections,
        "batching": {
            "max_batch": max(batching.preferred),
            "max_wait": batching.max_wait,
            "calls_at_once": batching.instances,
            "how": list(batching.how),
        },
        "machine": {"cpu": cpu(), "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()},
        "offline": rates,
        "servers": {name: [summary(one) for one in runs] for name, runs in found.items()},
    }


def cpu() -> str:
    from toolkit.cpu import name

    return name()


def summary(run: dict[str, Any]) -> dict[str, Any]:
    latencies = np.array(run.pop("latencies"), np.int64)
    memory = run.pop("memory")
    settled = memory[len(memory) // 5] if memory else 0
    kept = {"answers": len(latencies), "rate": len(latencies) / run["seconds"], "memory": memory}
    if len(latencies):
        kept["ms"] = {str(q): float(np.quantile(latencies, q) * 1e-6) for q in (0.5, 0.9, 0.99, 0.999)}
    kept["growth"] = (memory[-1] - settled) / settled if settled else 0.0
    return {**kept, **run, "errors": run["errors"][:5], "failed": len(run["errors"])}


def table(found: dict[str, Any]) -> str:
    alone = float(np.median(found["offline"]))
    machine, batching = found["machine"], found["batching"]
    lines = [
        f"# Serving {found['engine']} under load",
        "",
        f"{found['connections']} connections, {found['threads']} thread(s) in the engine, {machine['cores']} cores of "
        f"{machine['cpu']}, client and server on the same cores. The engine alone answers {alone:,.0f} images/s at batch "
        f"{batching['max_batch']}, {batching['calls_at_once']} call(s) at once. "
        f"Medians over {len(next(iter(found['servers'].values())))} rounds.",
        "",
        "| server | answers/s | of the engine's own | p50 ms | p99 ms | p99.9 ms | wrong | errors | memory after warm-up "
        "| server's CPU s | client's CPU s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, runs in found["servers"].items():

        def mid(get: Any, runs: Any = runs) -> float:
            return float(np.median([get(run) for run in runs]))

        quantiles = [f"{mid(lambda r, q=q: r.get('ms', {}).get(q, np.nan)):.2f}" for q in ("0.5", "0.99", "0.999")]
        sums = [str(sum(run[key] for run in runs)) for key in ("wrong", "failed")]
        per = mid(lambda r: r["rate"])
        cost = [f"{mid(lambda r, k=k: r[k]):.1f}" for k in ("server_cpu", "client_cpu")]
        cells = [name, f"{per:,.0f}", f"{per / alone:.0%}", *quantiles, *sums, f"{mid(lambda r: r['growth']):+.1%}", *cost]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    if sys.argv[1:2] == ["--client"]:
        port, path, folder, connections, seconds = sys.argv[2:]
        with suppress(ImportError):
            import uvloop

            uvloop.install()
        print(json.dumps(asyncio.run(load(int(port), path, Path(folder), int(connections), float(seconds)))))
        return
    sys.path.insert(0, str(HERE.parent))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each server, in all rounds together")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, nargs="*", default=[2], help="further numbers of the server's processes")
    parser.add_argument("--waits", type=float, nargs="*", default=[0.0, 2.0], help="further waits of the batcher, in ms")
    with_triton = PEERS if "TRITON_PYTHON" in os.environ else PEERS[:2]
    parser.add_argument("--peers", nargs="*", default=list(with_triton), choices=PEERS)
    parser.add_argument("--peers-python", help="of an environment that has them already")
    parser.add_argument("--quick", action="store_true", help="10 seconds in all")
    parser.add_argument("-o", "--output", type=Path, help="JSON; the table goes beside it as .md")
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.rounds = 10.0 / (1 + len(args.waits) + len(args.workers) + len(args.peers)), 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and no server stays behind
    with tempfile.TemporaryDirectory() as folder:
        found = trial(args, Path(folder))
    slug = re.sub(r"[^a-z0-9]+", "-", found["machine"]["cpu"].lower()).strip("-")
    output = args.output or HERE / "results" / f"serving-{found['engine']}-{slug}-{found['machine']['cores']}-cores.json"
    output.write_text(json.dumps(found, indent=1))
    output.with_suffix(".md").write_text(table(found))
    print(table(found))
    print(output)


if __name__ == "__main__":
    main()
