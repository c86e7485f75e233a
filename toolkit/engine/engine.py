"""Engine: what a build makes. One folder, or one packed file, that can be run, judged and measured where nothing else is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from toolkit.backends import backend
from toolkit.backends.settings import checked
from toolkit.cpu import cores
from toolkit.disk.files import decode_json
from toolkit.engine import layout, locations
from toolkit.errors import EngineError, extras, named_options
from toolkit.manifest import Manifest
from toolkit.recipe import Recipe
from toolkit.runtime.runner import Runner
from toolkit.types import ON_CPU, Executor, Stage, quiet

if TYPE_CHECKING:
    import onnx_ir as ir

    from toolkit.calibration.ranges import Ranges
    from toolkit.engine.answers import StoredAnswers
    from toolkit.engine.inspection import Inspection
    from toolkit.engine.judge import Judgement, Proof


class Engine:
    """A built engine: its manifest, and every file that the manifest lists, read once and checked against its hash.

    Opening one needs numpy, Pillow and msgspec; running it, the backend that it was compiled for; `graph` needs the export
    extra, `ranges` numpy alone. Nothing of the machine that built it is needed.

    >>> import toolkit
    >>> engine = toolkit.Engine.open("engines/built/fashion-resnet18-int8")
    >>> engine
    <Engine fashion-resnet18-int8: int8+fp16 for CPU, ...>
    >>> engine.ranges.images, engine.judge().accepted
    (64, True)
    >>> engine.pack("fashion.engine")
    PosixPath('fashion.engine')
    """

    def __init__(self, path: Path, manifest: Manifest, contents: dict[str, bytes]) -> None:
        self.path, self.manifest, self.contents = path, manifest, contents

    @classmethod
    @named_options
    def open(cls, path: str | Path, *, trusted: str | Path | Sequence[str | Path] | None = None) -> Engine:
        """The engine in a folder or a packed file. Raises EngineError: none there, damaged (it names the file), or foreign.

        `trusted` are files of public keys: an engine that none of them signed, just as it is, is refused.
        """
        if not isinstance(path, (str, Path)):
            what = f"{type(path).__name__} is not an engine"
            raise EngineError(what, remedy="Give the path of an engine's folder, or of a packed file")
        manifest, contents = layout.read(Path(path))
        checked(manifest.settings, backend(manifest.to_target()).SETTINGS, f"the settings of {manifest.name}")
        if trusted is not None:
            from toolkit.engine.signing import verify

            verify(contents, [trusted] if isinstance(trusted, (str, Path)) else trusted, str(path))
        return cls(Path(path), manifest, contents)

    def __repr__(self) -> str:
        return f"<Engine {self.name}: {self.manifest.precision} for {self.manifest.device}, {self.path}>"

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know of this engine beside its manifest."""
        if self.manifest.baseline is None and self.manifest.version == 1:
            what = "it carries no answers of its reference, and its files are not sealed"
            return (f"{self.name} is of format version 1: {what}. Build it again",)
        return ()

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that it was built from; paths are absolute only on the machine that built it. Raises EngineError."""
        found = locations.recipe_of(self.manifest.recipe, self.manifest.seal, self.name)
        if found.preprocess != self.manifest.preprocess:  # what is judged would not be what runs
            what = f"the recipe of {self.name} preprocesses pictures in another way than its manifest says"
            raise EngineError(what, remedy="Build the engine again")
        return found

    @property
    def has_graph(self) -> bool:
        return self.manifest.file == layout.MODEL or layout.GRAPH in self.contents

    @cached_property
    def graph(self) -> ir.Model:
        """The typed graph that it was compiled from. Raises EngineError, MissingExtra (`export`)."""
        data = self.contents.get(layout.MODEL if self.manifest.file == layout.MODEL else layout.GRAPH)
        if data is None:
            raise EngineError(f"{self.path} carries no graph", remedy="Build the engine again")
        with extras():
            from toolkit.graph.run import parse_graph
        return parse_graph(data, str(self.path))

    @cached_property
    def ranges(self) -> Ranges | None:
        """What INT8 was scaled by; None where it is not INT8. Raises CalibrationError."""
        from toolkit.calibration.ranges import Ranges

        data = self.contents.get(layout.RANGES)
        return None if data is None else Ranges.decode(data, f"{layout.RANGES} of {self.path}")

    @cached_property
    def layers(self) -> dict[str, Any]:
        """`operators` (name -> how many), `findings` of lint, and `layers` where the backend tells them. Raises EngineError."""
        data = self.contents.get(layout.LAYERS, b"{}")
        try:
            found = decode_json(data)
        except ValueError as error:
            raise EngineError(f"{layout.LAYERS} of {self.path} cannot be read: {error}", remedy="Build it again") from error
        return found if isinstance(found, dict) else {}

    @cached_property
    def answers(self) -> StoredAnswers | None:
        """The reference's answers on the images of `[accept]`; None where the recipe named none. Raises EngineError."""
        from toolkit.engine.answers import decode

        data = self.contents.get(layout.ANSWERS)
        found = None if data is None else decode(data)
        if found is not None and found.logits.shape[1] != self.manifest.columns:
            what = f"the stored answers have {found.logits.shape[1]} columns, those of {self.name} {self.manifest.columns}"
            raise EngineError(what, remedy="Build the engine again")
        return found

    @cached_property
    def proof(self) -> Proof | None:
        """The verdict of the build; None where there was none. Raises EngineError."""
        from toolkit.engine.judge import proof_of

        data = self.contents.get(layout.VERDICT)
        try:
            return None if data is None else proof_of(data)
        except ValueError as error:
            raise EngineError(f"{layout.VERDICT} of {self.path} cannot be read: {error}", remedy="Build it again") from error

    def runner(self, *, check_finite: bool = False, **options: Any) -> Runner:
        """A live Runner. `options` go to the backend: `threads` for ONNX Runtime on the CPU.

        With `check_finite` it refuses inputs that hold NaN or infinity. The runner's own manifest says what it runs with. Raises
        BackendError (a library, provider or option is not there), DeviceError (no fitting GPU).
        """
        manifest = self.manifest
        module = backend(manifest.to_target())
        checked(options, module.OPTIONS, f"the options to load {self.name} with")
        threads = options.get("threads") or manifest.settings.get("threads")
        if manifest.target in ON_CPU and isinstance(threads, int) and threads > cores():
            what = f"{self.name} runs on {threads} threads, this process may use {cores()} core(s): they will wait for each other"
            warnings.warn(f"{what}. Load it with threads={cores()}, or build it here", RuntimeWarning, stacklevel=3)
        executor = module.open(self.contents, manifest, **options)
        if options.get("threads"):
            manifest = msgspec.structs.replace(manifest, settings={**manifest.settings, "threads": options["threads"]})
        again = partial(_open_again, self.path.absolute(), self.manifest.seal, options)  # a runner can be pickled
        return Runner(manifest, executor, again, check_finite=check_finite)

    @named_options
    def judge(
        self,
        data: str | Path | None = None,
        against: Engine | str | Path | None = None,
        stage: Stage = quiet,
    ) -> Judgement:
        """The paired verdict against the reference, or another engine, on `data` (absent: the images of `[accept]`).

        The reference's answers are those that the engine carries; where `data` is not those images, the reference itself, if it
        is here. Where no images are, the build's verdict is given back as what it is. Raises DataError, EngineError,
        BackendError.
        """
        from toolkit.engine.judge import judge

        other = against if against is None or isinstance(against, Engine) else Engine.open(against)
        return judge(self, None if data is None else str(data), other, stage)

    def inspect(self) -> Inspection:
        """All that the engine tells without running it; needs no backend."""
        from toolkit.engine.inspection import inspect

        return inspect(self)

    def pack(self, target: str | Path) -> Path:
        """Write it as one file, a plain zip, stored and not deflated; `toolkit.load` takes that file as it takes a folder."""
        if not self.manifest.files:
            what = f"{self.name} is of an older format, whose files are not sealed"
            raise EngineError(what, remedy=f"Bring it to the current one: toolkit upgrade {self.path}")
        layout.pack(self.manifest, self.contents, Path(target))
        return Path(target)


def load(
    path: str | Path, *, trusted: str | Path | Sequence[str | Path] | None = None, check_finite: bool = False, **options: Any
) -> Runner:
    """A live Runner of the engine in a folder or a packed file: `Engine.open(path, trusted=...).runner(...)`.

    Everything that the manifest can tell is checked before a library touches the compiled file. Raises EngineError (no engine,
    damaged, foreign), BackendError (a library, provider or option is not there), DeviceError (no fitting GPU).

    >>> import toolkit
    >>> with toolkit.load("engines/built/fashion-resnet18-int8", threads=1) as runner:
    ...     print(runner.classify("pictures/boot.png")[0][0].label)
    Ankle boot
    """
    return Engine.open(path, trusted=trusted).runner(check_finite=check_finite, **options)


def _open_again(path: Path, seal: str, options: dict[str, Any]) -> Executor:
    """Opens the same engine again from where it lies, maybe in another process; the bytes of the first time are not kept."""
    engine = Engine.open(path)
    if engine.manifest.seal != seal:
        raise EngineError(f"{path} has been replaced by another engine since it was loaded", remedy="Load it again")
    executor: Executor = backend(engine.manifest.to_target()).open(engine.contents, engine.manifest, **options)
    return executor
