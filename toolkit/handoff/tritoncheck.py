"""Holds what a handoff wrote for Triton against Triton's own schema, and against the engine's tensors."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from toolkit.errors import EngineError
from toolkit.handoff.tritonconfig import DTYPES, PICTURES
from toolkit.manifest import Manifest
from toolkit.types import TensorSpec

UNCHECKED = "not checked against Triton's protobuf: pip install 'resnet-deploy[triton]' brings it"


def check(configs: Mapping[str, str], manifest: Manifest) -> str:
    """What was checked, in words. Raises EngineError where a configuration is none, or does not fit the engine.

    `configs` are the texts of the models by name: the engine, its preprocessing, and their ensemble.
    """
    schema = _schema()
    if schema is None:
        return UNCHECKED
    parsed = {name: _parse(schema, name, text) for name, text in configs.items()}
    name = manifest.name
    inputs, outputs = _of_specs(manifest.inputs), _of_specs(manifest.outputs)
    pictures = {PICTURES: ("TYPE_STRING", (1,))}
    wanted = {name: (inputs, outputs), f"{name}-preprocess": (pictures, inputs), f"{name}-pictures": (pictures, outputs)}
    for model, (takes, gives) in wanted.items():
        config = parsed[model]
        found = _of_tensors(schema, config.input), _of_tensors(schema, config.output)
        if found != (takes, gives) or config.name != model:
            raise EngineError(f"the configuration of {model} does not fit the engine: {found} for {(takes, gives)}")
    for step in parsed[f"{name}-pictures"].ensemble_scheduling.step:
        ends = [{tensor.name for tensor in side} for side in (parsed[step.model_name].input, parsed[step.model_name].output)]
        if [set(step.input_map), set(step.output_map)] != ends:
            raise EngineError(f"the ensemble of {name} does not connect {step.model_name}")
    return f"checked against the protobuf of tritonclient {version('tritonclient')} and the engine's tensors"


def _schema() -> Any:
    """tritonclient's `model_config_pb2`, read from its file: the package around it would want gRPC, which a schema needs not."""
    found = find_spec("tritonclient")
    file = Path((found.submodule_search_locations or [""])[0]) / "grpc" / "model_config_pb2.py" if found is not None else None
    spec = spec_from_file_location("triton_model_config_pb2", file) if file is not None and file.exists() else None
    if spec is None or spec.loader is None or find_spec("google.protobuf") is None:
        return None
    schema = sys.modules.get(spec.name)
    if schema is None:  # its messages can be registered once
        schema = module_from_spec(spec)
        spec.loader.exec_module(schema)
        sys.modules[spec.name] = schema
    return schema


def _parse(schema: Any, name: str, text: str) -> Any:
    from google.protobuf import text_format

    try:
        return text_format.Parse(text, schema.ModelConfig())
    except text_format.ParseError as error:
        raise EngineError(f"Triton's schema refuses the configuration of {name}: {error}") from error


def _of_specs(specs: Iterable[TensorSpec]) -> dict[str, tuple[str, tuple[Any, ...]]]:
    return {spec.name: (DTYPES[spec.dtype], spec.shape[1:]) for spec in specs}


def _of_tensors(schema: Any, tensors: Iterable[Any]) -> dict[str, tuple[str, tuple[Any, ...]]]:
    return {tensor.name: (schema.DataType.Name(tensor.data_type), tuple(tensor.dims)) for tensor in tensors}
