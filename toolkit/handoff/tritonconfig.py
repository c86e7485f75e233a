"""What a `config.pbtxt` says for an engine: plain values, written as text by `pbtxt`.

Field names, enums and defaults are those of Triton's model_config.proto.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.handoff.pbtxt import Name, entries, to_text
from toolkit.harness.batching import Batching
from toolkit.manifest import Manifest
from toolkit.types import TensorSpec, one_line

MARK = "# Written by resnet-deploy: toolkit handoff triton"
PICTURES = "pictures"  # the tensor of encoded pictures
LABELS = "labels.txt"
DECODERS = 2  # processes that decode pictures
DTYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
}


def engine(manifest: Manifest, backend: str, batching: Batching, packed: str) -> str:
    """Of the model that takes tensors. `packed` is the engine's file for the Python backend."""
    about = {"seal": manifest.seal, "precision": manifest.precision, "outputs_are": manifest.outputs_are}
    if backend == "python":
        about["engine"] = packed
    elif backend == "onnxruntime" and manifest.to_target().kind == "cpu":
        about["intra_op_thread_count"] = str(manifest.settings.get("threads", 1))
    kind = {"platform": "tensorrt_plan"} if backend == "tensorrt" else {"backend": backend}
    return _text(
        batching.how,
        {
            "name": manifest.name,
            **kind,
            **_tensors(manifest.inputs, _outputs(manifest), batching),
            "instance_group": {"count": batching.instances, **_place(manifest, backend)},
            "dynamic_batching": _dynamic(batching),
            "model_warmup": [_warmup(manifest, batch) for batch in sorted({1, *batching.preferred})],
            "parameters": _parameters(about),
        },
    )


def preprocess(manifest: Manifest, batching: Batching) -> str:
    """Of the model that makes tensors of encoded pictures."""
    (spec,) = manifest.inputs
    return _text(
        (f"{DECODERS} processes decode; give it more where pictures wait for them",),
        {
            "name": f"{manifest.name}-preprocess",
            "backend": "python",
            **_tensors([_PICTURE], [_tensor(spec)], batching),
            "instance_group": {"count": DECODERS, "kind": Name("KIND_CPU")},
            "dynamic_batching": {},
            "model_warmup": {"name": "a picture", "batch_size": 1, "inputs": entries({PICTURES: _SAMPLE})},
            "parameters": _parameters({"seal": manifest.seal}),
        },
    )


def ensemble(manifest: Manifest, batching: Batching) -> str:
    """Of pictures in, logits out."""
    (spec,) = manifest.inputs
    outputs = {output.name: output.name for output in manifest.outputs}
    return _text(
        (),
        {
            "name": f"{manifest.name}-pictures",
            "platform": "ensemble",
            **_tensors([_PICTURE], _outputs(manifest), batching),
            "ensemble_scheduling": {
                "step": [
                    _step(f"{manifest.name}-preprocess", {PICTURES: PICTURES}, {spec.name: spec.name}),
                    _step(manifest.name, {spec.name: spec.name}, outputs),
                ]
            },
        },
    )


def labels(manifest: Manifest) -> bytes | None:
    """One name a line, in the order of the columns; None where columns are not classes, or have no names."""
    if manifest.classes is None or unlabeled(manifest):
        return None
    return "".join(" ".join(name.split()) + "\n" for name in manifest.classes).encode()


def unlabeled(manifest: Manifest) -> str:
    """Why there is no labels file; empty where there is one."""
    if manifest.classes is None:
        return "the engine names no classes"
    if manifest.meaning.binary:
        return "one column tells two classes apart, and Triton numbers columns"
    return ""


# a string in a warm-up's file has its length before it, as 4 bytes
_BLACK = b"P6 8 8 255\n" + bytes(8 * 8 * 3)
WARMUP = f"warmup/{PICTURES}", len(_BLACK).to_bytes(4, "little") + _BLACK
_SAMPLE = {"data_type": Name("TYPE_STRING"), "dims": [1], "input_data_file": PICTURES}
_PICTURE = {"name": PICTURES, "data_type": Name("TYPE_STRING"), "dims": [1]}


def _text(comments: Sequence[str], message: Mapping[str, Any]) -> str:
    return "\n".join([MARK, *(f"# {one_line(line)}" for line in comments), to_text(message)]) + "\n"


def _tensors(inputs: Sequence[Any], outputs: Sequence[Any], batching: Batching) -> dict[str, Any]:
    return {
        "max_batch_size": batching.max_batch,
        "input": [_tensor(spec) if isinstance(spec, TensorSpec) else spec for spec in inputs],
        "output": list(outputs),
        "version_policy": {"latest": {"num_versions": 1}},
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "data_type": Name(DTYPES[spec.dtype]), "dims": list(spec.shape[1:])}


def _outputs(manifest: Manifest) -> list[dict[str, Any]]:
    first, *others = manifest.outputs
    named = {"label_filename": LABELS} if labels(manifest) is not None else {}
    return [{**_tensor(first), **named}, *(_tensor(spec) for spec in others)]


def _place(manifest: Manifest, backend: str) -> dict[str, Any]:
    kind = manifest.to_target().kind
    if kind in ("cpu", "openvino"):
        return {"kind": Name("KIND_CPU")}
    profiles = [str(i) for i in range(len(manifest.profiles))] if backend == "tensorrt" else []
    return {"kind": Name("KIND_GPU"), **({"profile": profiles} if len(profiles) > 1 else {})}


def _dynamic(batching: Batching) -> dict[str, Any]:
    delay = math.ceil(batching.max_wait * 1e6)
    return {
        **({"preferred_batch_size": list(batching.preferred)} if batching.preferred else {}),
        "max_queue_delay_microseconds": delay,
    }


def _warmup(manifest: Manifest, batch: int) -> dict[str, Any]:
    (spec,) = manifest.inputs
    sample = {"data_type": Name(DTYPES[spec.dtype]), "dims": list(spec.shape[1:]), "zero_data": True}
    return {"name": f"batch of {batch}", "batch_size": batch, "inputs": entries({spec.name: sample})}


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> dict[str, Any]:
    return {
        "model_name": model,
        "model_version": -1,
        "input_map": entries(inputs),
        "output_map": entries(outputs),
    }


def _parameters(values: Mapping[str, str]) -> list[dict[str, Any]]:
    return entries({key: {"string_value": value} for key, value in values.items()})
