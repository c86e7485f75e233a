"""PyTorch tensors straight into an engine, without a copy.

    python examples/torch_tensors.py engines/built/fashion-resnet18-int8

A CPU tensor is read where it is by every engine. A CUDA tensor is read where it is by an engine that runs on that GPU: the
runner joins PyTorch's CUDA context, waits for PyTorch's stream, and copies nothing but the logits back.
"""

import sys

import torch

import toolkit


def main(engine: str) -> None:
    with toolkit.load(engine) as runner:
        on_gpu = runner.manifest.target != "cpu" and torch.cuda.is_available()
        spec = runner.manifest.inputs[0]
        images = torch.rand(5, *spec.shape[1:], device="cuda" if on_gpu else "cpu")
        # still on its way on PyTorch's stream when the runner is called
        images = (images * 255).to(torch.uint8) if spec.dtype == "uint8" else (images - 0.5) * 4
        logits = torch.from_numpy(runner(images))
        print(f"{images.device} tensor -> logits {list(logits.shape)}, classes {logits.argmax(1).tolist()}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except toolkit.ToolkitError as error:
        sys.exit(f"{error}")
