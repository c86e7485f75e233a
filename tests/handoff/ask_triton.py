"""Runs in the environment of tritonserver: asks over HTTP and gRPC, each image alone and in batches, and writes the answers down.

    python ask_triton.py HTTP GRPC MODEL FOLDER       FOLDER holds batch.npy and pictures; answers.npz goes into it

It imports nothing of the toolkit.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tritonclient.grpc
import tritonclient.http


def ask(protocol, client, model, tensor, array, kind, **options):
    asked = protocol.InferInput(tensor, array.shape, kind)
    asked.set_data_from_numpy(array)
    return client.infer(model, [asked], outputs=[protocol.InferRequestedOutput("logits", **options)]).as_numpy("logits")


def main(http, grpc, model, folder):
    folder = Path(folder)
    batch = np.load(folder / "batch.npy")
    files = sorted(folder.glob("*.png"))
    pictures = [np.array([[file.read_bytes()]], object) for file in files]
    answers = {}
    for name, protocol, address in (("http", tritonclient.http, http), ("grpc", tritonclient.grpc, grpc)):
        client = protocol.InferenceServerClient(address)
        answers[f"{name}-alone"] = np.concatenate([ask(protocol, client, model, "input", one[None], "FP32") for one in batch])
        answers[f"{name}-batch"] = ask(protocol, client, model, "input", batch, "FP32")
        some = [ask(protocol, client, f"{model}-pictures", "pictures", one, "BYTES") for one in pictures]
        answers[f"{name}-pictures"] = np.concatenate(some)
        many = ask(protocol, client, f"{model}-pictures", "pictures", np.concatenate(pictures), "BYTES")
        answers[f"{name}-many-pictures"] = many
        labels = ask(protocol, client, f"{model}-pictures", "pictures", pictures[0], "BYTES", class_count=2)
        answers[f"{name}-labels"] = labels.reshape(-1).astype(str)
        for what, array, kind in (
            ("bad picture", np.array([[b"no picture"]], object), "BYTES"),
            ("bad shape", batch[..., :-1].copy(), "FP32"),
        ):
            target, tensor = (f"{model}-pictures", "pictures") if kind == "BYTES" else (model, "input")
            try:
                ask(protocol, client, target, tensor, array, kind)
                said = "answered"
            except protocol.InferenceServerException as error:
                said = error.message()
            answers[f"{name}-{what}"] = np.array(said)
        client.close()

    def one(index):  # many callers at once: Triton's batcher puts them together
        client = tritonclient.http.InferenceServerClient(http)
        return [ask(tritonclient.http, client, model, "input", batch[i][None], "FP32") for i in range(index, len(batch), 4)]

    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(one, range(4)))
    answers["crowd"] = np.concatenate([parts[i % 4][i // 4] for i in range(len(batch))])
    np.savez(folder / "answers.npz", **answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
