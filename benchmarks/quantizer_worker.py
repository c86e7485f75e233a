"""One quantizer, in its own process and environment: python quantizer_worker.py TOOL IN.onnx CALIBRATION.npy OUT.onnx

Prints one JSON line: seconds of the tool's work (imports not counted) and the process's peak memory in MiB. TOOL is
onnxruntime (min-max), onnxruntime-entropy, onnxruntime-percentile, modelopt, nncf or nncf-accuracy; each is used as its own
documentation shows, INT8, with its own default method but as below.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before it is loaded


def by_onnxruntime(source: str, images: np.ndarray, target: str, method: str = "MinMax") -> None:
    """Static quantization, U8S8 per channel: what its guide recommends for a CPU."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(np.array_split(images, len(images) // 8))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"input": batch}

    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(source, target, Reader(), per_channel=True, calibrate_method=CalibrationMethod[method], **types)


def by_modelopt(source: str, images: np.ndarray, target: str) -> None:
    """NVIDIA's Model Optimizer, entropy, on the CPU."""
    from modelopt.onnx.quantization import quantize

    quantize(
        source,
        quantize_mode="int8",
        calibration_data={"input": images},
        calibration_method="entropy",
        calibration_eps=["cpu"],
        output_path=target,
    )


def by_nncf(source: str, images: np.ndarray, target: str) -> None:
    """NNCF's post-training quantization of an ONNX model."""
    import nncf
    import onnx

    data = nncf.Dataset([image[None] for image in images], lambda image: {"input": image})
    onnx.save(nncf.quantize(onnx.load(source), data, subset_size=len(images)), target)


def by_nncf_accuracy(source: str, images: np.ndarray, target: str) -> None:
    """NNCF with accuracy control: layers go back to FP32 until top-1 is FP32's on 99 % of the calibration images."""
    import nncf
    import onnx
    import onnxruntime

    def answers(model: onnx.ModelProto) -> np.ndarray:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return np.concatenate([session.run(None, {"input": image[None]})[0].reshape(1, -1).argmax(1) for image in images])

    plain = onnx.load(source)
    expected = answers(plain)
    data = nncf.Dataset([image[None] for image in images], lambda image: {"input": image})

    def agreement(model: onnx.ModelProto, _: object) -> tuple[float, None]:
        return float((answers(model) == expected).mean()), None

    made = nncf.quantize_with_accuracy_control(plain, data, data, agreement, subset_size=len(images), max_drop=0.01)
    onnx.save(made, target)


def main() -> None:
    tool, source, images, target = sys.argv[1:]
    work, module = {
        "onnxruntime": (by_onnxruntime, "onnxruntime.quantization"),
        "onnxruntime-entropy": (partial(by_onnxruntime, method="Entropy"), "onnxruntime.quantization"),
        "onnxruntime-percentile": (partial(by_onnxruntime, method="Percentile"), "onnxruntime.quantization"),
        "modelopt": (by_modelopt, "modelopt.onnx.quantization"),
        "nncf": (by_nncf, "nncf"),
        "nncf-accuracy": (by_nncf_accuracy, "nncf"),
    }[tool]
    importlib.import_module(module)
    data = np.load(images)
    start = time.perf_counter()
    work(source, data, target)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent's memory at the fork
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "peak_mib": peak / 1024}))


if __name__ == "__main__":
    main()
