"""The Open Inference protocol (KServe v2) over HTTP: an infer request -> an array, logits -> its response.

Sources: kserve/open-inference-protocol, `specification/protocol/inference_rest.md`; the binary tensor data and classification
extensions as Triton documents them (`docs/protocol/extension_binary_data.md`, `extension_classification.md`).
"""

from __future__ import annotations

import math
import re
import struct
from typing import Any, NamedTuple

import msgspec
import numpy as np

from toolkit.manifest import MOST, Manifest
from toolkit.serve.refused import JSON, Answer, Refused
from toolkit.types import Array, Float, TensorSpec

DATATYPES = {
    "float32": "FP32", "float16": "FP16", "uint8": "UINT8", "int8": "INT8", "int32": "INT32", "int64": "INT64",
}  # fmt: skip
DEEPEST = 8  # brackets around a value of a tensor: no engine here has so many axes
LONGEST = 10**12  # microseconds that a request may give itself: more is no number that a clock takes
HEADER_LENGTH = b"inference-header-content-length"
_BINARY = b"application/octet-stream"
Parameters = dict[str, bool | int | float | str]


class Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters = {}
    data: msgspec.Raw = msgspec.Raw()


class Output(msgspec.Struct):
    name: str
    parameters: Parameters = {}


class Request(msgspec.Struct):
    """Unknown keys are let pass, as the protocol's extensions add their own."""

    inputs: list[Input]
    outputs: list[Output] | None = None
    id: str | None = None
    parameters: Parameters = {}


class Wanted(NamedTuple):
    """What an infer request asks for: images [n, ...], how the answer is to be written, and within how many seconds."""

    images: Array
    id: str | None
    binary: bool
    classes: int | None
    empty: bool  # it names its outputs, and names none
    seconds: float | None


def parse(body: bytes, header: bytes | None, manifest: Manifest, most_json: int) -> Wanted:
    """Raises Refused, which says what is wrong with the request."""
    length = _header_length(body, header)
    if length > most_json:
        raise Refused(413, f"the JSON is larger than {most_json:,} bytes: send tensors as binary data", "json")
    try:
        request = msgspec.json.decode(memoryview(body)[:length], type=Request)
    except RecursionError:
        raise Refused(400, "the request's JSON is nested too deep", "json") from None
    except ValueError as error:
        raise Refused(400, f"the request is not an infer request: {error}", "json") from None
    spec = manifest.inputs[0]
    if len(request.inputs) != 1:
        raise Refused(400, f"the model takes one input, '{spec.name}', not {len(request.inputs)}", "inputs")
    _check_parameters(request)
    images = _tensor(request.inputs[0], spec, memoryview(body)[length:])
    binary, classes = _output(request, manifest)
    return Wanted(images, request.id, binary, classes, request.outputs == [], _seconds(request))


def _header_length(body: bytes, header: bytes | None) -> int:
    if header is None:
        return len(body)
    if not header.isdigit() or len(header) > 12 or int(header) > len(body):
        what = f"Inference-Header-Content-Length is not a number up to the {len(body)} bytes of the body"
        raise Refused(400, what, "binary")
    return int(header)


def _check_parameters(request: Request) -> None:
    """Refuse what would change the answer and is not done here."""
    everything = [request.parameters, request.inputs[0].parameters, *(output.parameters for output in request.outputs or ())]
    for parameters in everything:
        for name in parameters:
            if name.startswith("shared_memory"):
                raise Refused(400, "this server reads no shared memory: send the tensor", "parameters")
            if name.startswith("sequence_") and parameters[name]:
                raise Refused(400, "the model keeps no state between requests: there are no sequences", "parameters")


def _seconds(request: Request) -> float | None:
    """Triton's `timeout`, in microseconds."""
    timeout = request.parameters.get("timeout")
    if timeout is None or timeout == 0:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int) or not 0 <= timeout <= LONGEST:
        raise Refused(400, f"`timeout` is a number of microseconds, up to {LONGEST}", "parameters")
    return timeout / 1e6


def _tensor(given: Input, spec: TensorSpec, rest: memoryview) -> Array:
    if given.name != spec.name:
        raise Refused(400, f"the model has no input '{given.name}'; it takes '{spec.name}'", "inputs")
    want = DATATYPES[spec.dtype]
    if given.datatype != want:
        raise Refused(400, f"input '{spec.name}' is {want}, not {given.datatype}", "datatype")
    shape = tuple(given.shape)
    if len(shape) != len(spec.shape) or shape[1:] != spec.shape[1:] or shape[0] < 0:
        wanted = ", ".join(str(size) for size in (-1, *spec.shape[1:]))
        raise Refused(400, f"input '{spec.name}' has shape [{wanted}], not {list(shape)}", "shape")
    if shape[0] == 0:
        raise Refused(400, f"input '{spec.name}' is a batch of 0 images", "shape")
    if shape[0] > MOST:
        raise Refused(400, f"input '{spec.name}' is a batch of more than {MOST} images", "shape")
    size = given.parameters.get("binary_data_size")
    if size is None:
        if len(rest):
            raise Refused(400, f"{len(rest)} bytes follow the JSON, and no input says `binary_data_size`", "binary")
        return _from_json(given, spec, shape)
    return _from_binary(given, spec, shape, size, rest)


def _from_binary(given: Input, spec: TensorSpec, shape: tuple[int, ...], size: Any, rest: memoryview) -> Array:
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    expected = math.prod(shape) * dtype.itemsize
    if bytes(given.data):
        raise Refused(400, f"input '{spec.name}' has both `data` and `binary_data_size`", "binary")
    if isinstance(size, bool) or size != expected or len(rest) != expected:
        what = f"input '{spec.name}' of shape {list(shape)} is {expected} bytes; `binary_data_size` says {size}"
        raise Refused(400, f"{what}, and {len(rest)} follow the JSON", "binary")
    array = np.frombuffer(rest, dtype)
    if not array.flags.aligned:
        # The JSON before it may have any length, and no kernel expects a float that lies across two words. Not by NumPy, whose
        # copy lets go of the interpreter's lock, and then has to wait for it while another thread computes.
        array = np.frombuffer(bytes(rest), dtype)
    return array.astype(spec.dtype, copy=False).reshape(shape)


def _from_json(given: Input, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    """Values row by row, flat or nested. A float32 written as JSON with 9 digits or more comes back bit for bit."""
    raw = bytes(given.data)
    if not raw:
        raise Refused(400, f"input '{spec.name}' has neither `data` nor `binary_data_size`", "inputs")
    if spec.dtype == "float16":
        raise Refused(400, f"input '{spec.name}' is FP16, which JSON has no numbers for: send it as binary data", "datatype")
    brackets = re.match(rb"[\s\[]*", raw)
    depth = brackets[0].count(b"[") if brackets else 0
    if not 1 <= depth <= DEEPEST:
        raise Refused(400, f"the data of input '{spec.name}' is not a list, or one nested {depth} deep", "inputs")
    kind: Any = float if np.dtype(spec.dtype).kind == "f" else int
    for _ in range(depth):
        kind = list[kind]
    try:
        values = np.asarray(msgspec.json.decode(raw, type=kind))
        if values.size != math.prod(shape) or (depth > 1 and values.shape != shape):
            what = f"the data of input '{spec.name}' has {values.size} values in shape {list(values.shape)}"
            raise Refused(400, f"{what}; its `shape` is {list(shape)}", "shape")
        return _cast(values, np.dtype(spec.dtype)).reshape(shape)
    except (ValueError, OverflowError) as error:  # a ragged list, a value of another type or out of range
        raise Refused(400, f"the data of input '{spec.name}' cannot be taken: {error}", "inputs") from None


def _cast(values: Array, dtype: np.dtype[Any]) -> Array:
    if dtype.kind != "f" and values.size:
        limits = np.iinfo(dtype)
        if values.min() < limits.min or values.max() > limits.max:
            raise ValueError(f"a value is outside {limits.min} to {limits.max}")
    with np.errstate(over="ignore"):
        array = values.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"a value is beyond what {DATATYPES[dtype.name]} holds")
    return array


def _output(request: Request, manifest: Manifest) -> tuple[bool, int | None]:
    """Whether the answer is binary, and how many classes are wanted in place of the tensor."""
    name, parameters = manifest.outputs[0].name, request.parameters
    for output in request.outputs or ():
        if output.name != name:
            raise Refused(400, f"the model has no output '{output.name}'; it answers '{name}'", "outputs")
    if len(request.outputs or ()) > 1:
        raise Refused(400, f"output '{name}' is asked for twice", "outputs")
    own: Parameters = request.outputs[0].parameters if request.outputs else {}
    binary = own.get("binary_data", parameters.get("binary_data_output", False))
    count = own.get("classification", 0)
    if not isinstance(binary, bool):
        raise Refused(400, "`binary_data` is true or false", "parameters")
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise Refused(400, "`classification` is a number of classes", "parameters")
    return binary, count or None


def encode(wanted: Wanted, logits: Float, manifest: Manifest, name: str, version: str) -> Answer:
    """The response to `wanted`, whose answers are `logits` float32 [n, columns]. Raises Refused for what JSON cannot carry."""
    head: dict[str, Any] = {"model_name": name, "model_version": version}
    if wanted.id is not None:
        head["id"] = wanted.id
    head["outputs"] = []
    if wanted.empty:
        return Answer(msgspec.json.encode(head))
    output: dict[str, Any] = {"name": manifest.outputs[0].name}
    head["outputs"].append(output)
    if wanted.classes is None:
        output |= {"datatype": "FP32", "shape": list(logits.shape)}
        return _with_tensor(head, output, np.ascontiguousarray(logits, "<f4"), wanted.binary)
    if not np.isfinite(manifest.meaning.probabilities(logits)).all():
        raise Refused(500, "the answer holds NaN or infinity, among which no class comes first", "not-finite")
    rows = classifications(logits, wanted.classes, manifest)
    output |= {"datatype": "BYTES", "shape": [len(rows), len(rows[0])]}
    texts = [text for row in rows for text in row]
    if not wanted.binary:
        return Answer(msgspec.json.encode(head | {"outputs": [output | {"data": texts}]}))
    encoded = [text.encode() for text in texts]
    return _with_bytes(head, output, b"".join(struct.pack("<I", len(text)) + text for text in encoded))


def _with_tensor(head: dict[str, Any], output: dict[str, Any], logits: Float, binary: bool) -> Answer:
    if binary:
        return _with_bytes(head, output, logits.tobytes())
    if not np.isfinite(logits).all():
        raise Refused(500, "the answer holds NaN or infinity, which JSON cannot carry: ask for binary data", "not-finite")
    output["data"] = logits.ravel().tolist()  # as float64, all digits of it: read back and rounded, each is the same float32
    return Answer(msgspec.json.encode(head))


def _with_bytes(head: dict[str, Any], output: dict[str, Any], data: bytes) -> Answer:
    output["parameters"] = {"binary_data_size": len(data)}
    text = msgspec.json.encode(head)
    return Answer(text + data, kind=_BINARY, headers=((HEADER_LENGTH, b"%d" % len(text)),))


def classifications(logits: Float, count: int, manifest: Manifest) -> list[list[str]]:
    """`value:index:label` of the `count` highest classes of each row; a class without a name is `value:index`."""
    meaning, names = manifest.meaning, manifest.classes
    scores, order = meaning.scores(logits), meaning.order(logits, count)
    return [
        [f"{row[i]!s}:{i}:{names[i]}" if names else f"{row[i]!s}:{i}" for i in best]
        for best, row in zip(order, scores, strict=True)
    ]


def json_answer(value: Any, status: int = 200) -> Answer:
    return Answer(msgspec.json.encode(value), status, JSON)
