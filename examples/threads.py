"""One engine, many threads: a runner may be called from all of them at once.

    python examples/threads.py engines/built/fashion-resnet18-int8 [threads]

A TensorRT engine keeps a pool of execution contexts, so that calls overlap on the GPU; ONNX Runtime takes concurrent calls
as they come. Closing waits for the calls that run and refuses those that have not begun.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import toolkit

REQUESTS = 64


def main(engine: str, threads: str = "4") -> None:
    with toolkit.load(engine) as runner:
        spec = runner.manifest.inputs[0]  # float32, or uint8 where the engine takes pixels
        random = np.random.default_rng(0)
        sizes = random.integers(1, 9, REQUESTS)
        requests = [(64 + 40 * random.standard_normal((n, *spec.shape[1:]))).clip(0, 255).astype(spec.dtype) for n in sizes]
        alone = [runner(batch) for batch in requests]
        start = time.perf_counter()
        with ThreadPoolExecutor(int(threads)) as pool:
            answers = list(pool.map(runner, requests))
        seconds = time.perf_counter() - start
    same = all(np.allclose(a, b, atol=1e-2) for a, b in zip(answers, alone, strict=True))
    print(f"{sum(map(len, requests))} images in {REQUESTS} requests from {threads} threads: {seconds:.3f} s")
    print("the same answers as alone" if same else "OTHER answers than alone")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except toolkit.ToolkitError as error:
        sys.exit(f"{error}")
