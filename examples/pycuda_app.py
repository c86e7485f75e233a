"""An app that lives in PyCUDA: its context, its kernels, its memory, and an engine between them.

    python examples/pycuda_app.py engines/built/fashion-resnet18-int8-tensorrt

The runner is loaded while the app's context is current, so it works in that context; the input is the app's GPUArray,
read where it is. Not measured on a GPU.
"""

import sys

import numpy as np

import toolkit


def main(engine: str) -> None:
    try:
        import pycuda.autoinit  # noqa: F401  makes a context and keeps it current
        from pycuda import curandom, gpuarray
    except ImportError as error:
        sys.exit(f"PyCUDA is not here: {error}. Run: pip install 'resnet-deploy[pycuda]'")
    with toolkit.load(engine) as runner:
        shape = (4, *runner.manifest.inputs[0].shape[1:])
        images: gpuarray.GPUArray = curandom.rand(shape, dtype=np.float32) * 4 - 2  # the app's own kernels
        on_gpu = runner(images)
        on_host = runner(images.get())
        print(f"classes {on_gpu.argmax(1).tolist()}, largest difference to the host's way {np.abs(on_gpu - on_host).max():.2e}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except toolkit.ToolkitError as error:
        sys.exit(f"{error}")
