"""`ort`: an ONNX file that carries its TensorRT-RTX engine, for ONNX Runtime with NVIDIA's plugin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from toolkit.backends.onnxruntime.epcontext import EMBEDDABLE, ep_context, plan_of
from toolkit.backends.onnxruntime.plugin import architecture
from toolkit.disk.files import make_folder, write_atomically
from toolkit.engine.engine import Engine
from toolkit.errors import EngineError
from toolkit.manifest import Manifest

PLUGIN = "onnxruntime-ep-nv-tensorrt-rtx-cu13"
PLUGIN_SMS = "86, 89, 120 and later"  # what its release 0.5 runs on
LOADING = """import os; os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import: it would report to its maker
import onnxruntime as ort, onnxruntime_ep_nv_tensorrt_rtx as plugin
ort.register_execution_provider_library("rtx", plugin.get_library_path())
options = ort.SessionOptions()
options.add_provider_for_devices([d for d in ort.get_ep_devices() if d.ep_name == plugin.get_ep_name()][:1], {})
session = ort.InferenceSession(FILE, options)
logits = session.run(None, {INPUT: batch})[0]"""


def refuse_same_names(engines: Sequence[Engine]) -> None:
    """Raise EngineError where two engines would have one file: those of one recipe for different targets have one name."""
    by_name = dict[str, Engine]()
    for engine in engines:
        other = by_name.setdefault(engine.name, engine)
        if other is not engine:
            what = f"{other.path} and {engine.path} are both called {engine.name}: their files would have one name"
            raise EngineError(what, remedy="Hand off each into a folder of its own: -o")


def to_onnxruntime(engine: Engine, folder: Path, *, embed: bool = True) -> Path:
    """Write `folder`/NAME.onnx, which ONNX Runtime with NVIDIA's plugin loads without a build; gives its path.

    With `embed` the plan lies inside it, else beside it as NAME.plan. Class names, preprocessing and the manifest's hashes are
    in the file's metadata. Raises EngineError for an engine of another library, or one too large to be embedded.
    """
    manifest = engine.manifest
    if manifest.to_target().kind != "rtx":
        what = f"{manifest.name} is an engine for {manifest.target}; such a file carries one of TensorRT-RTX"
        raise EngineError(what, remedy="Build one: toolkit build RECIPE --target rtx")
    data = engine.contents[manifest.file]
    if manifest.to_target().hosted:
        data = plan_of(data)
    if embed and len(data) > EMBEDDABLE:
        what = f"the engine of {manifest.name} has {len(data) / 2**30:.1f} GiB; an ONNX file holds less than 2"
        raise EngineError(what, remedy="Leave it beside the file: --no-embed")
    make_folder(folder)
    beside = f"{manifest.name}.plan"
    if not embed:
        write_atomically(folder / beside, data)
    path = folder / f"{manifest.name}.onnx"
    file = ep_context(
        data if embed else beside,
        manifest.inputs,
        manifest.outputs,
        name=manifest.name,
        sdk=manifest.versions["tensorrt_rtx"],
        architecture=architecture(manifest.to_target(), manifest.settings),
        metadata=metadata_of(manifest),
    )
    write_atomically(path, file)
    return path


def metadata_of(manifest: Manifest) -> dict[str, str]:
    """What an app needs beside the tensors, as ONNX metadata: class names and preprocessing as JSON, and where it came from."""
    found = {
        "name": manifest.name,
        "precision": manifest.precision,
        "target": manifest.target,
        "preprocess": msgspec.json.encode(manifest.preprocess).decode(),
        "max_batch": str(manifest.largest),
        "hashes": msgspec.json.encode(manifest.hashes, order="sorted").decode(),
        "toolkit": manifest.versions.get("toolkit", ""),
    }
    if manifest.classes is not None:
        found["classes"] = msgspec.json.encode(manifest.classes).decode()
    return found
