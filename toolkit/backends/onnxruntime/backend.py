"""ONNX Runtime: `cpu`, the embedded default, and `cuda`. The compiled file is the ONNX graph itself."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from toolkit.backends.onnxruntime.bound import BoundExecutor, wait_on
from toolkit.backends.onnxruntime.settings import candidates, choose
from toolkit.backends.settings import CpuOptions, SessionSettings, checked
from toolkit.cpu import cores, has_vnni
from toolkit.cpu import name as cpu_name
from toolkit.disk.files import sha256_bytes, write_atomically
from toolkit.errors import BackendError, ClosedError, EngineError, MissingExtra
from toolkit.manifest import Manifest
from toolkit.recipe import Build
from toolkit.runtime.device import best
from toolkit.runtime.foreign import warn_of_cpu
from toolkit.types import ON_CPU, Array, Compiled, Contents, Float, Target

if TYPE_CHECKING:
    import onnx_ir as ir

FILE = "model.onnx"
SETTINGS, OPTIONS = SessionSettings, CpuOptions
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def check(build: Build, target: Target) -> None:
    """Raise what `compile` would raise for want of a library or an option, before there is any graph."""
    refuse_foreign_options(build, target)
    library()


def compile(graph: ir.Model, build: Build, target: Target, folder: Path) -> Compiled:
    """Write the graph into `folder` and load it once, so that a graph which cannot run is refused now. Raises BackendError."""
    from toolkit.onnxfile import serialize

    refuse_foreign_options(build, target)
    ort = library()
    data = serialize(graph)
    digest = sha256_bytes(data)
    settings: dict[str, Any] = {"threads": build.threads or cores(), "spin": bool(build.spin)}
    notes: tuple[str, ...] = ()
    if target.kind == "cpu":
        session(data, target, settings)
        _, batch, _ = build.profiles[0]  # the one to be fast at
        key = f"{digest} {ort.__version__} {cpu_name()}"
        settings, notes = choose(lambda tried: session(data, target, tried), candidates(build, cores()), batch, key)
    write_atomically(folder / FILE, data)
    return Compiled(
        file=FILE,
        device=_device(target),
        versions={"onnxruntime": ort.__version__},
        settings=settings,
        hashes={"onnx": digest},
        notes=notes,
    )


def open(source: Contents, manifest: Manifest, threads: int | None = None) -> SessionExecutor | BoundExecutor:
    """A live session of the engine whose files are in `source`; `threads` overrides the manifest.

    Raises BackendError, EngineError.
    """
    if manifest.target in ON_CPU:
        warn_of_cpu(manifest)
    settings = msgspec.to_builtins(checked(manifest.settings, SETTINGS, f"the settings of {manifest.name}"))
    if threads is not None:
        settings["threads"] = threads
    data = manifest.compiled(source)
    other = manifest.versions.keys() & {"tensorrt", "tensorrt_rtx", "openvino"}
    if other and "onnxruntime" not in manifest.versions:
        what = f"{manifest.name} is an engine of {', '.join(sorted(other))}, though its manifest says {manifest.target}"
        raise EngineError(what, remedy="Build the engine again")
    live = session(data, manifest.to_target(), settings)
    names = manifest.inputs[0].name, manifest.outputs[0].name
    if manifest.to_target().kind == "cuda":
        device = best(0)  # the one that the CUDA provider takes by default
        return BoundExecutor(live, *names, ("cuda", device.index), wait_on(device), device.close)
    return SessionExecutor(live, *names)


class SessionExecutor:
    """Runs one ONNX Runtime session; any batch, any number of threads at once."""

    max_batch: int | None = None

    def __init__(self, live: Any, input_name: str, output_name: str) -> None:
        self.session = live
        self._run = live._sess.run if hasattr(live, "_sess") else live.run
        self._input, self._outputs = input_name, [output_name]

    def run(self, batch: Array) -> Float:
        try:
            logits: Float = self._run(self._outputs, {self._input: batch}, None)[0]
        except Exception as error:  # ONNX Runtime's own classes, made while it loads
            if self._run is None:  # closed by another thread
                raise ClosedError("this session is closed", remedy="Load the engine again") from None
            raise BackendError(f"ONNX Runtime failed on a batch of {len(batch)}: {error}") from error
        return logits

    def close(self) -> None:
        self.session = self._run = None


class ForeignExecutor(SessionExecutor):
    """Runs a file that another tool made, float32 in and out: a batch written into it is filled up, the input gets the type that
    the file takes, answers of [N], [N, C, 1, 1] and their like become [N, C], and the first `offset` columns are left out."""

    def __init__(
        self, live: Any, input_name: str, output_name: str, batch: int | None, dtype: str = "float32", offset: int = 0
    ) -> None:
        super().__init__(live, input_name, output_name)
        self.max_batch, self._dtype, self._offset = batch, dtype, offset

    def run(self, batch: Array) -> Float:
        missing = (self.max_batch or len(batch)) - len(batch)
        filled = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
        if self._dtype != "float32":
            filled = filled.astype(self._dtype) if self._dtype.startswith("float") else np.rint(filled).astype(self._dtype)
        answers = super().run(filled).reshape(len(filled), -1)[: len(batch)]
        return answers[:, self._offset :].astype(np.float32, copy=False)


def session(
    model: bytes | str,
    target: Target,
    settings: dict[str, Any],
    *,
    lean: bool = False,
    profile: Path | None = None,
    optimized: Path | None = None,
    as_is: bool = False,
    unfused: bool = False,
    without: Sequence[str] = (),
) -> Any:
    """An InferenceSession with one provider, the one that was asked for.

    `settings` are those of a manifest. The rest is for the toolkit's own use: `lean` plans no memory ahead, `profile` is where to
    write a profile, `optimized` where to write the graph as it will run (its weights beside it), `as_is` reads such a graph,
    `unfused` runs Q/DQ pairs as they stand, in floating point, `without` names optimizers to leave out.

    Raises BackendError where the provider is not there: ONNX Runtime itself would print a line and use the CPU.
    """
    ort = library()
    provider = PROVIDERS[target.kind]
    if provider not in ort.get_available_providers():
        raise BackendError(
            f"this ONNX Runtime has no {provider}",
            remedy="Run: pip install 'resnet-deploy[gpu]'" if target.kind == "cuda" else "Reinstall onnxruntime",
        )
    options = _session_options(ort, settings, lean, profile, optimized)
    if as_is:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if unfused:  # what any correct kernel would answer
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.add_session_config_entry("session.disable_double_qdq_remover", "1")
    try:
        live = ort.InferenceSession(model, options, providers=[provider], disabled_optimizers=without or None)
    except Exception as error:  # ONNX Runtime's own classes, made while it loads
        raise EngineError(f"ONNX Runtime cannot load this graph: {str(error).strip()}") from error
    if provider not in live.get_providers():
        raise BackendError(f"ONNX Runtime was asked for {provider} and could not start it", remedy="Run: toolkit doctor")
    return live


def _session_options(library: Any, settings: dict[str, Any], lean: bool, profile: Path | None, optimized: Path | None) -> Any:
    options = library.SessionOptions()
    options.intra_op_num_threads = int(settings.get("threads") or cores())  # 0 would be all of the host's
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if settings.get("spin") else "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")  # between calls cores are free for others
    options.enable_mem_pattern = options.enable_cpu_mem_arena = not lean
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", f"{optimized.stem}.weights")
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    return options


@functools.cache
def library() -> ModuleType:
    """ONNX Runtime, told to send nothing. Raises MissingExtra.

    From 1.29 on its wheels report to their maker, unless told otherwise before they are loaded: the file names and hashes of
    models, the path of the process, an id of the machine. An app that wants that sets ORT_DISABLE_TELEMETRY=0 itself.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("onnxruntime", "cpu") from None
    return onnxruntime  # type: ignore[no-any-return]


def refuse_foreign_options(build: Build, target: Target) -> None:
    """Options of TensorRT must not pass in silence where ONNX Runtime compiles."""
    default = Build()
    for key in (
        "workspace_mib",
        "optimization_level",
        "timing_cache",
        "hardware_compatibility",
        "version_compatible",
        "refit",
        "strip_weights",
    ):
        if getattr(build, key) != getattr(default, key):
            raise BackendError(
                f"`build.{key}` is an option of TensorRT; target {target} has none",
                remedy="Remove it, or build for tensorrt or rtx",
            )


def _device(target: Target) -> str:
    import platform

    if target.kind == "cuda":
        return "CUDA, any GPU that onnxruntime-gpu runs on"
    return f"CPU, {platform.machine()}{', VNNI' if has_vnni() else ''}"
