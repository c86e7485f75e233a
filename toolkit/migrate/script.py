"""A builder script in Python, as TensorRT 10 and before took them -> what a recipe says instead. It is read, never run.

Only what the text itself says can be taken: flags, constants and names. What hangs on a condition is taken as if the condition
held, and said; what only a run would tell is listed with its line.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolkit.errors import RecipeError
from toolkit.migrate.cache import is_cache
from toolkit.migrate.constants import Constants, text_of
from toolkit.migrate.layers import selected
from toolkit.migrate.old import TYPES, OldBuild, OldShape, is_there, method_of, precision_of, profiles_of

CALLS = re.compile(r"\b(create_builder_config|BuilderFlag|int8_calibrator|build_serialized_network|fp16_mode|int8_mode)\b")
KINDS = {"FP16": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8"}
BOOLEANS = {
    "REFIT": "refit", "REFIT_IDENTICAL": "refit", "STRIP_PLAN": "strip_weights", "VERSION_COMPATIBLE": "version_compatible",
}  # fmt: skip
GONE = "removed: the graph says each precision, and TensorRT 11 keeps to it"
TF32 = "FP32 islands use TF32 where the library does; there is no key for it"
FLAGS_GONE = {
    "STRICT_TYPES": GONE, "OBEY_PRECISION_CONSTRAINTS": GONE, "PREFER_PRECISION_CONSTRAINTS": GONE,
    "REJECT_EMPTY_ALGORITHMS": GONE, "GPU_FALLBACK": "about DLA, which is not a target here", "TF32": TF32,
}  # fmt: skip
MODES = {"fp16_mode": "FP16", "int8_mode": "INT8"}  # of a builder before TensorRT 8
MOST_LAYERS = 100_000
SIZES = ("max_workspace_size",)
ASKS = re.compile(r"platform_has_fast_|platform_has_tf32")  # whether the GPU has a type: an engine's target has said so


def is_script(text: str) -> bool:
    """Whether it is Python that builds an engine."""
    return CALLS.search(text) is not None and _parsed(text) is not None


def read_script(text: str, folder: Path) -> OldBuild:
    """`text` is the script's, `folder` the one that its own paths are relative to. Raises RecipeError where it cannot be read."""
    tree = _parsed(text)
    try:
        if tree is not None:
            return _Reader(tree, folder).read()
    except RecursionError:
        pass
    raise RecipeError("the script is no Python that can be read", remedy="Write what it sets as a trtexec line")


def _parsed(text: str) -> ast.Module | None:
    """The script's syntax tree; what Python would warn of, such as odd escapes, is not the reader's concern."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


class _Reader:
    """Mutable while it reads; `read` gives what stays."""

    def __init__(self, tree: ast.Module, folder: Path) -> None:
        self.tree, self.folder, self.constants = tree, folder, Constants(tree)
        self.kinds: list[str] = []
        self.build: dict[str, Any] = {"target": "tensorrt"}
        self.calibration: dict[str, Any] = {}
        self.layers: list[tuple[str, str]] = []
        self.shapes: list[tuple[str, list[int]]] = []
        self.inputs: list[OldShape] = []
        self.said: list[str] = []

    def read(self) -> OldBuild:
        for node, conditions in _walk(self.tree, ()):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                self._call(node, node.func, conditions)
            elif isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)) and node.value is not None:
                off = isinstance(node, ast.AugAssign) and isinstance(node.op, ast.BitAnd)  # flags &= ~(1 << FLAG)
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if isinstance(target, ast.Attribute):
                        self._assignment(target, node.value, conditions, on=not off)
            elif isinstance(node, ast.ClassDef):
                self._calibrator([text_of(base) for base in node.bases])
        input_name = self.shapes[0][0] if self.shapes else ""
        profiles = [batches for name, batches in self.shapes if name == input_name]
        shapes = {kind: [batches[index] for batches in profiles] for index, kind in enumerate(("min", "opt", "max"))}
        self.build |= profiles_of(shapes, "the script")
        return OldBuild(
            onnx=self._file(".onnx"), cache=self._cache(), precision=precision_of(self.kinds), build=self.build,
            calibration=self.calibration, layers=tuple(self.layers), shapes=tuple(self.inputs),
            said=tuple(dict.fromkeys(self.said)),
        )  # fmt: skip

    def _call(self, node: ast.Call, function: ast.Attribute, conditions: tuple[ast.expr, ...]) -> None:
        first = node.args[0] if node.args else None
        if function.attr in ("set_flag", "clear_flag") and first is not None:
            for name in _flags(first) or [""]:
                self._flag(name, first, conditions, on=function.attr == "set_flag")
        elif function.attr == "set_memory_pool_limit" and len(node.args) == 2:
            self._memory(text_of(node.args[0]).rpartition(".")[2], node.args[1])
        elif function.attr in ("set_shape", "set_shape_input") and len(node.args) == 4:
            self._shape(node)
        elif function.attr == "set_timing_cache":
            self.build["timing_cache"] = True
        elif function.attr == "set_output_type":
            self._tell(node, GONE)
        elif function.attr in ("set_dynamic_range", "set_calibration_profile", "set_quantization_flag"):
            self._tell(node, "removed: the scales stand in the graph; put ranges of your own into `calibration.ranges`")

    def _assignment(self, target: ast.Attribute, value: ast.expr, conditions: tuple[ast.expr, ...], on: bool) -> None:
        name = target.attr
        if name == "flags" and (flags := _flags(value)):
            for flag in flags:
                self._flag(flag, value, conditions, on)
        elif name in MODES and not (isinstance(value, ast.Constant) and value.value is False):
            self._flag(MODES[name], value, conditions if isinstance(value, ast.Constant) else (*conditions, value))
        elif name in SIZES:
            self._memory("WORKSPACE", value)
        elif name == "int8_calibrator":
            self._calibrator([text_of(value)])
        elif name == "precision" and (kind := TYPES.get(text_of(value).rpartition(".")[2].lower())):
            self._layer(target, kind, conditions)
        elif name == "dynamic_range":
            self._tell(target, "removed: the scales stand in the graph; put ranges of your own into `calibration.ranges`")
        elif name == "builder_optimization_level":
            level = self.constants.number(value)
            self._known("optimization_level", level, target, value)
        elif name == "hardware_compatibility_level":
            self.build["hardware_compatibility"] = text_of(value).rpartition(".")[2].lower()
        elif name in ("default_device_type", "DLA_core"):
            self._tell(target, "about DLA, which is not a target here")
        elif name == "max_batch_size":
            self._tell(target, "a batch that the network does not state is removed: set `build.batch`")

    def _flag(self, name: str, where: ast.expr, conditions: tuple[ast.expr, ...], on: bool = True) -> None:
        if name in FLAGS_GONE:
            self._tell(where, FLAGS_GONE[name])
        elif not on:
            self._tell(where, "a flag that is taken back is not taken over")
        elif name in KINDS or name in BOOLEANS:
            if name in KINDS:
                self.kinds.append(KINDS[name])
            else:
                self.build[BOOLEANS[name]] = True
            if doubts := [text_of(test) for test in conditions if not ASKS.search(text_of(test))]:
                self.said.append(f"line {where.lineno}: {name} is set where `{doubts[-1][:200]}`: taken as if that held")
        else:
            self._tell(where, "not taken over; look for it in docs/reference/recipe.md")

    def _memory(self, pool: str, value: ast.expr) -> None:
        if pool != "WORKSPACE":
            self._tell(value, f"there is no key for the pool {pool}")
            return
        size = self.constants.number(value)
        self._known("workspace_mib", None if size is None else max(1, round(size / 2**20)), value, value)

    def _known(self, key: str, value: int | None, where: ast.AST, said: ast.expr) -> None:
        if value is None:
            self._tell(where, f"only a run of the script would tell `{text_of(said)}`: set `build.{key}`")
        else:
            self.build[key] = value

    def _shape(self, node: ast.Call) -> None:
        name = node.args[0].value if isinstance(node.args[0], ast.Constant) else text_of(node.args[0])
        batches = [self.constants.first(shape) for shape in node.args[1:]]
        for kind, shape in zip(("min", "opt", "max"), node.args[1:], strict=True):
            if sizes := self.constants.sizes(shape):
                self.inputs.append(OldShape(kind, str(name), sizes))
        if None in batches:
            self._tell(node, "only a run of the script would tell these shapes: set `build.batch`")
        else:
            self.shapes.append((str(name), [batch for batch in batches if batch is not None]))

    def _calibrator(self, names: list[str]) -> None:
        for name in names:
            self.calibration |= method_of(name)

    def _layer(self, target: ast.Attribute, kind: str, conditions: tuple[ast.expr, ...]) -> None:
        names, doubts = selected(target.value, conditions, self.constants)
        self.layers += [(name, kind) for name in names]
        if len(self.layers) > MOST_LAYERS:
            what = f"the script gives more than {MOST_LAYERS:,} layers a precision"
            raise RecipeError(what, remedy="Write what it sets as a trtexec line, with patterns")
        if names == ["*"] and conditions:  # on something else than the layer, such as its number
            where = f"line {target.lineno}: {kind} for every layer where"
            self.said.append(f"{where} `{text_of(conditions[-1])}`: look which those are")
        where = f"line {target.lineno}: {kind} for the layers with"
        self.said += [f"{where} `{doubt[:200]}`, which only a run of the script would tell" for doubt in doubts]

    def _tell(self, node: ast.AST, why: str) -> None:
        self.said.append(f"line {getattr(node, 'lineno', 0)}: {text_of(node)[:60]}: {why}")

    def _strings(self) -> list[str]:
        found = (node.value for node in ast.walk(self.tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
        return list(dict.fromkeys(found))

    def _file(self, suffix: str) -> str | None:
        """The one file of this kind that the script names, where it lies beside the script or in the current folder."""
        named = [text for text in self._strings() if text.endswith(suffix) and text != suffix]
        if len(named) > 1:
            self.said.append(f"the script names several files: {', '.join(text[:80] for text in named)}")
        return next((str(path) for path in self._places(named[0])), None) if len(named) == 1 else None

    def _cache(self) -> str | None:
        """The first file that the script names and that is a calibration cache."""
        paths = (path for text in self._strings() for path in self._places(text))
        return next((str(path) for path in paths if is_cache(path)), None)

    def _places(self, text: str) -> list[Path]:
        """The file of this name, where it lies beside the script or in the current folder."""
        return [path for path in (self.folder / text, Path(text)) if is_there(path)]


def _walk(node: ast.AST, conditions: tuple[ast.expr, ...]) -> Iterator[tuple[ast.AST, tuple[ast.expr, ...]]]:
    """Every node, with the conditions that it hangs on, outermost first."""
    yield node, conditions
    for field, value in ast.iter_fields(node):
        inside = conditions
        if isinstance(node, (ast.If, ast.IfExp)) and field == "body":
            inside = (*conditions, node.test)
        elif isinstance(node, (ast.If, ast.IfExp)) and field == "orelse":
            inside = (*conditions, _not(node.test))
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _walk(child, inside)
            if isinstance(child, ast.If) and isinstance(child.body[-1], ast.Continue):  # what follows in the loop hangs on it too
                inside = (*inside, _not(child.test))


def _not(test: ast.expr) -> ast.expr:
    return ast.copy_location(ast.UnaryOp(ast.Not(), test), test)


def _flags(expression: ast.expr) -> list[str]:
    """The names behind `BuilderFlag.` in an expression such as `1 << int(trt.BuilderFlag.FP16)`."""
    return re.findall(r"BuilderFlag\.(\w+)", text_of(expression))
