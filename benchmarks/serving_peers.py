"""The peers of `serving.py`, as a user would write them by hand: python serving_peers.py PEER MODEL PORT THREADS BATCH WAIT_MS.

The same ONNX file and the same ONNX Runtime settings. `fastapi` takes a float32 image as raw bytes by POST /infer and answers its
logits as raw bytes; it runs the session in a thread, and batches nothing. `litserve` batches, and takes and gives base64 in JSON
by POST /predict.
"""

import base64
import os
import sys

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before it is loaded

import numpy as np
import onnxruntime
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

try:
    import litserve
except ImportError:
    litserve = None


def session(model: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def shape_of(live: onnxruntime.InferenceSession) -> list[int]:
    return list(live.get_inputs()[0].shape[1:])


def by_fastapi(model: str, port: int, threads: int) -> None:
    import uvicorn

    live = session(model, threads)
    name, shape, app = live.get_inputs()[0].name, shape_of(live), FastAPI()

    @app.post("/infer")
    async def infer(request: Request) -> Response:
        image = np.frombuffer(await request.body(), np.float32).reshape(1, *shape)
        [logits] = await run_in_threadpool(live.run, None, {name: image})
        return Response(logits.tobytes(), media_type="application/octet-stream")

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


class Classify(litserve.LitAPI if litserve else object):  # type: ignore[misc]
    """Images and logits as base64 in JSON: LitServe takes JSON or forms."""

    def __init__(self, model: str, threads: int, batch: int, wait: float) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=wait)
        self.model, self.threads, self.many = model, threads, batch > 1

    def setup(self, device: str) -> None:
        self.live = session(self.model, self.threads)
        self.name, self.shape = self.live.get_inputs()[0].name, shape_of(self.live)

    def decode_request(self, request: dict) -> np.ndarray:
        return np.frombuffer(base64.b64decode(request["image"]), np.float32).reshape(self.shape)

    def batch(self, inputs: list) -> np.ndarray:
        return np.stack(inputs)

    def unbatch(self, output: np.ndarray) -> list:
        return list(output)

    def predict(self, batch: np.ndarray) -> np.ndarray:
        [logits] = self.live.run(None, {self.name: batch if self.many else batch[None]})
        return logits if self.many else logits[0]

    def encode_response(self, output: np.ndarray) -> dict:
        return {"logits": base64.b64encode(output.tobytes()).decode()}


if __name__ == "__main__":
    peer, model, port, threads, batch, wait = sys.argv[1:]
    if peer == "fastapi":
        by_fastapi(model, int(port), int(threads))
    else:
        api = Classify(model, int(threads), int(batch), float(wait) / 1e3)
        litserve.LitServer(api, accelerator="cpu").run(
            port=int(port), host="127.0.0.1", log_level="error", generate_client_file=False
        )
