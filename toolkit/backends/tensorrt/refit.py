"""Refit: other weights in a plan that was built for that, without building it again.

TensorRT's reader of ONNX files passes over every constant that the plan does not list as exchangeable, and says nothing. So the
constants that are to change are compared with that list before any of them is put in.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from toolkit.backends.tensorrt import library as libraries
from toolkit.backends.tensorrt.library import Library, Message
from toolkit.errors import BackendError, EngineError
from toolkit.manifest import Manifest
from toolkit.runtime.foreign import AGAIN

SHOWN = 5  # constants that one message names
WRONG_BIAS = (11, 3)  # NVIDIA's release notes of 11.3: with REFIT, the bias of a matrix product may be dropped
OWN_ALONE = "its plan takes no weights but its own"


def fill(library: Library, weights: bytes, engine: Any) -> None:
    """Put the weights back into an engine that was built without them. Raises BackendError."""
    log = libraries.log_of(library.trt)
    with log.listen() as heard:
        _put_in(library, library.trt.Refitter(engine, log.handle), weights, "the stripped weights cannot be put back", heard)


def exchange(library: Library, plan: bytes, data: bytes, changed: Collection[str], manifest: Manifest) -> bytes:
    """The plan with the weights of the ONNX file `data`, whose constants differ from the plan's in `changed`, on the current GPU.

    Raises EngineError for a plan that takes no other weights, BackendError, which names them, for constants that it has baked in.
    """
    trt, log = library.trt, libraries.log_of(library.trt)
    with log.listen() as heard:
        runtime = trt.Runtime(log.handle)
        if manifest.settings.get("version_compatible"):  # it holds code of its own, run only by permission
            runtime.engine_host_code_allowed = True
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise EngineError(f"{library.name} refuses {manifest.name}: {libraries.errors_of(heard)}", remedy=AGAIN)
        if not engine.refittable:
            raise EngineError(f"{manifest.name} cannot be refitted: {OWN_ALONE}", remedy="Set `build.refit`, and build it once")
        refitter = trt.Refitter(engine, log.handle)
        _refuse_baked(sorted(set(changed) - set(refitter.get_all_weights())), manifest.name)
        _put_in(library, refitter, data, f"the new weights cannot be put into {manifest.name}", heard)
        if manifest.settings.get("strip_weights"):  # the file beside the plan holds them; that the plan takes them is shown
            return plan
        serialization = engine.create_serialization_config()
        if "INCLUDE_REFIT" in trt.SerializationFlag.__members__:  # from 10.14 on: it can be refitted again
            serialization.set_flag(trt.SerializationFlag.INCLUDE_REFIT)
        return bytes(memoryview(engine.serialize_with_config(serialization)))


def caveat(library: Library) -> tuple[str, ...]:
    """A note on what the library's maker knows to go wrong in plans that can be refitted."""
    if library.kind != "tensorrt" or library.release[:2] != WRONG_BIAS:
        return ()
    what = "WARNING: TensorRT 11.3 may drop the bias of a matrix product in a plan that can be refitted"
    return (f"{what} (its release notes): check it on the GPU with toolkit accuracy, or use another version",)


def _refuse_baked(names: list[str], name: str) -> None:
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        what = f"the plan of {name} has constants baked in that the new weights change: {', '.join(names[:SHOWN])}{more}"
        raise BackendError(what, remedy="Build it without --refit")


def _put_in(library: Library, refitter: Any, weights: bytes, what: str, heard: list[Message]) -> None:
    trt, log = library.trt, libraries.log_of(library.trt)
    reader = trt.OnnxParserRefitter(refitter, log.handle)
    if not reader.refit_from_bytes(weights):
        said = [reader.get_error(index).desc() for index in range(reader.num_errors)]
        if said:
            raise BackendError(f"{what}: {' '.join(said[0].split())}", remedy="Build it without --refit")
        raise libraries.explain(library, what, heard)
    if missing := list(refitter.get_missing_weights()):
        raise BackendError(f"{what}: it also wants {', '.join(missing[:SHOWN])}", remedy="Build it without --refit")
    if not refitter.refit_cuda_engine():
        raise libraries.explain(library, what, heard)
