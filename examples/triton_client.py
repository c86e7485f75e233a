"""Ask a server that speaks the Open Inference protocol, Triton or `toolkit serve`, about pictures. Needs tritonclient[http].

The engine is here for its manifest alone: how pictures become tensors, and what the answers are called. No backend is needed.

    toolkit handoff triton engines/built/fashion-resnet18-int8 -o models && tritonserver --model-repository models
    python examples/triton_client.py localhost:8000 engines/built/fashion-resnet18-int8 photo.png ...
"""

import sys

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

import toolkit
from toolkit.images.picture import preprocess


def main(url: str, engine: str, *paths: str) -> None:
    manifest = toolkit.Engine.open(engine).manifest
    takes, gives = manifest.inputs[0].name, manifest.outputs[0].name
    batch = np.stack([preprocess(path, manifest.preprocess) for path in paths])
    asked = triton.InferInput(takes, batch.shape, np_to_triton_dtype(batch.dtype))
    asked.set_data_from_numpy(batch)
    with triton.InferenceServerClient(url) as client:
        answer = client.infer(manifest.name, [asked], outputs=[triton.InferRequestedOutput(gives)])
    outputs = answer.as_numpy(gives)
    names = manifest.classes
    best, shares = manifest.meaning.order(outputs), manifest.meaning.probabilities(outputs)
    for path, order, share in zip(paths, best, shares, strict=True):
        print(path, *(f"{names[i] if names else i} {share[i]:.1%}" for i in order[:3]), sep="  ")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (toolkit.ToolkitError, InferenceServerException, OSError) as error:
        sys.exit(f"{error}")
