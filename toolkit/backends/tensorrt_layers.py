"""What an engine consists of, layer by layer: from the engine's inspector where its GPU is, else from the log of its build."""

from __future__ import annotations

import json
import re
from typing import Any

from toolkit.backends.tensorrt_library import Library, Message, log_of
from toolkit.runtime.device import Device

HEADING = "Engine Layer Information:"


def layers_of(library: Library, plan: bytes, device: Device | None, heard: list[Message]) -> dict[str, Any]:
    """`source`, `library` and `layers`: lines where the source is `build log`, objects where it is `inspector`."""
    log = [message.text for message in heard if message.text.lstrip().startswith(HEADING)]
    lines = [line.strip() for text in log for line in text.split(HEADING, 1)[1].splitlines() if line.strip()]
    report: dict[str, Any] = {"library": f"{library.name} {library.version}", "source": "build log", "layers": lines}
    if library.kind == "rtx":
        # TensorRT-RTX hands the whole graph to its compiler as one layer; the log tells the ONNX nodes inside it.
        inside = [re.findall(r"\[ONNX Layer: ([^\]]*)\]", m.text) for m in heard if m.text.startswith("ForeignNode")]
        report["nodes"] = list(dict.fromkeys(name for names in inside for name in names))
    if device is None:
        return report
    trt = library.trt
    runtime = trt.Runtime(log_of(trt).handle)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return report  # such as a plan without weights; the log's lines stand
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return report | {"source": "inspector", "layers": json.loads(text)["Layers"]}
