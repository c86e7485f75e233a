"""`triton`: a model repository that NVIDIA's Triton Inference Server starts from as it stands.

An engine NAME becomes three models: NAME (tensors in, logits out), NAME-preprocess (encoded pictures in, tensors out; Triton's
Python backend) and NAME-pictures, the ensemble of both: pictures in, logits out. Preprocessing is the toolkit's own code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Literal, NamedTuple

from toolkit.disk.files import write_atomically
from toolkit.engine.engine import Engine
from toolkit.errors import EngineError
from toolkit.handoff import extra_of
from toolkit.handoff import tritonconfig as config
from toolkit.handoff.tritoncheck import check
from toolkit.handoff.tritonrepo import Repository
from toolkit.harness.batching import assumed, batching_of
from toolkit.harness.results import Results
from toolkit.manifest import MANIFEST

Backend = Literal["auto", "onnxruntime", "tensorrt", "python"]
NATIVE: dict[str, Backend] = {"cpu": "onnxruntime", "cuda": "onnxruntime", "tensorrt": "tensorrt"}
FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan", "python": "model.py"}
PACKED = "model.engine"
CLIENT, README = "client.py", "README.md"


class Handed(NamedTuple):
    """One engine's models in a repository, by name, and what should be said about them."""

    models: tuple[str, ...]
    version: int
    remarks: tuple[str, ...]


def to_triton(
    engines: Sequence[Engine],
    folder: Path,
    *,
    backend: Backend = "auto",
    results: Results | None = None,
    version: int | None = None,
) -> list[Handed]:
    """Write a model repository into `folder`, beside models that are there already; gives what was written for each engine.

    `backend` `auto` is Triton's own for ONNX and for TensorRT plans, and the Python backend with the toolkit's runner for the
    others. Batch sizes, the queue's delay and instances come from `results`, a bench of the engines. An engine that is there
    already keeps its version; another one of its name becomes the next, which Triton loads before it lets go of the old one.

    Raises EngineError (two engines of one name, a backend that cannot run it, a folder that is not ours), MeasurementError.
    """
    names = Counter(engine.name for engine in engines)
    if twice := next((name for name, count in names.items() if count > 1), None):
        what = f"{names[twice]} of the engines are called {twice}, and a repository can hold only one model of that name"
        raise EngineError(what, remedy="Give each a folder of its own")
    chosen = [_backend(engine, backend) for engine in engines]
    found = [_hand(engine, kind, Repository(folder), results, version) for engine, kind in zip(engines, chosen, strict=True)]
    client, first = inside("triton_client.py"), engines[0]
    values = {"model": f"{first.name}-pictures", "input": config.PICTURES, "output": first.manifest.outputs[0].name}
    for key, value in values.items():
        client = client.replace(f'"{{{key}}}"', repr(value), 1)  # a literal of Python, whatever a stranger named the tensor
    write_atomically(folder / CLIENT, client.encode())
    write_atomically(folder / README, _readme(found).encode())
    return found


def inside(name: str) -> str:
    """The text of a file that is copied into what a handoff writes."""
    return (files("toolkit.handoff") / "inside" / name).read_text(encoding="utf-8")


def _backend(engine: Engine, wanted: Backend) -> Backend:
    """Raises EngineError where the engine cannot run behind `wanted`."""
    kind = engine.manifest.to_target().kind
    native = NATIVE.get(kind, "python")
    if wanted not in ("auto", "python", native):
        what = f"{engine.name} is an engine for {engine.manifest.target}, which Triton's {wanted} backend does not run"
        raise EngineError(what, remedy=f"Use --backend {native}")
    chosen = native if wanted == "auto" else wanted
    least = min(profile.min for profile in engine.manifest.profiles)
    if chosen == "tensorrt" and least > 1:
        what = f"{engine.name} takes batches from {least} up, and Triton sends single images"
        raise EngineError(what, remedy="Build it with a profile from 1 up: [build] batch = [1, 8, 32]")
    return chosen


def _hand(engine: Engine, backend: Backend, repository: Repository, results: Results | None, wanted: int | None) -> Handed:
    manifest, name = engine.manifest, engine.name
    batching = assumed(manifest) if results is None else batching_of(manifest, results)
    made = {
        name: config.engine(manifest, backend, batching, PACKED),
        f"{name}-preprocess": config.preprocess(manifest, batching),
        f"{name}-pictures": config.ensemble(manifest, batching),
    }
    remarks = [*batching.how, *_remarks(engine, backend), check(made, manifest)]
    with repository.alone():
        version = _write(engine, backend, repository, made, wanted)
    return Handed(tuple(made), version, tuple(remarks))


def _write(engine: Engine, backend: Backend, repository: Repository, made: dict[str, str], wanted: int | None) -> int:
    """Lay the models down; gives the version that they got. Raises EngineError."""
    manifest, name = engine.manifest, engine.name
    for model in made:
        repository.refuse_foreign(model)
    version = repository.version_of(name, manifest.seal, wanted)
    labels = config.labels(manifest)
    own = {} if labels is None else {config.LABELS: labels}
    identity = {MANIFEST: engine.contents[MANIFEST]}

    def pictures(folder: Path) -> None:
        _put(folder, {FILES["python"]: inside("triton_pictures.py").encode(), **identity})

    repository.write(name, made[name], version, partial(_fill, engine, backend), own)
    repository.write(f"{name}-preprocess", made[f"{name}-preprocess"], version, pictures, dict([config.WARMUP]))
    repository.write(f"{name}-pictures", made[f"{name}-pictures"], version, lambda folder: _put(folder, identity), own)
    return version


def _fill(engine: Engine, backend: Backend, folder: Path) -> None:
    """The files of a version: for Triton's own backends the compiled file, byte for byte; and whose it is."""
    if backend == "python":
        _put(folder, {FILES[backend]: inside("triton_runner.py").encode()})
        engine.pack(folder / PACKED)
    else:
        _put(folder, {FILES[backend]: engine.contents[engine.manifest.file]})
    _put(folder, {MANIFEST: engine.contents[MANIFEST]})


def _put(folder: Path, contents: Mapping[str, bytes]) -> None:
    for name, data in contents.items():
        (folder / name).write_bytes(data)


def _remarks(engine: Engine, backend: Backend) -> list[str]:
    manifest, said = engine.manifest, []
    if backend == "tensorrt":
        said.append(f"the plan runs in a Triton whose TensorRT is {manifest.versions.get('tensorrt', 'that of the build')}")
    elif backend == "onnxruntime":
        made = manifest.versions.get("onnxruntime", "?")
        said.append(f"built with ONNX Runtime {made}; an older one in Triton may refuse its opset")
    else:
        needs = f"pip install 'resnet-deploy[{extra_of(manifest)}]'"
        said.append(f"the engine runs in the toolkit's runner: Triton's Python needs {needs}")
    said.append("pictures are decoded in Triton's Python backend, which needs pip install resnet-deploy")
    if backend == "onnxruntime" and manifest.settings.get("spin"):
        said.append("the build found spinning threads faster; Triton decides by itself whether they spin")
    if config.labels(manifest) is None:
        said.append("no labels file: " + config.unlabeled(manifest))
    return said


def _readme(found: Sequence[Handed]) -> str:
    lines = ["# A model repository for Triton", "", "    tritonserver --model-repository THIS_FOLDER", ""]
    lines += [f"    python {CLIENT} photo.jpg", "", "| model | takes |", "|---|---|"]
    for one in found:
        name, preprocess, pictures = one.models
        lines += [f"| `{pictures}` | encoded pictures (JPEG, PNG ...), BYTES [n, 1] |", f"| `{name}` | tensors |"]
        lines += [f"| `{preprocess}` | pictures; gives the tensors that `{name}` takes |"]
    for one in found:
        lines += ["", f"## {one.models[0]}, version {one.version}", *(f"- {remark}" for remark in one.remarks)]
    return "\n".join(lines) + "\n"
