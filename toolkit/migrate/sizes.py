"""Sizes: what old shapes say of the images that an ONNX file leaves open, and where the two contradict each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolkit.errors import RecipeError
from toolkit.graph.load.glance import Tensor
from toolkit.migrate.old import OldShape


def sized(first: Tensor, shapes: Sequence[OldShape], model: Path) -> tuple[tuple[int | None, ...], list[str]]:
    """The sizes of an image as a file's first input has them, open ones as the best (`opt`) old shapes give them; what to say.

    Shapes of an input of that name count, else those of the first input that is named. Raises RecipeError where they contradict
    the file, or where the best ones are of several sizes: an engine here takes images of one.
    """
    alike = [shape for shape in shapes if len(shape.sizes) == len(first.shape)] or shapes
    name = first.name if any(shape.name == first.name for shape in shapes) else next((shape.name for shape in alike), "")
    ours = [shape for shape in shapes if shape.name == name]
    for shape in ours:
        _refuse_other(first, shape, model)
    given = [{shape.sizes[axis] for shape in ours} - {None} for axis in range(len(first.shape))]
    best = [{shape.sizes[axis] for shape in ours if shape.kind == "opt"} - {None} for axis in range(len(first.shape))]
    said = []
    for axis in range(1, len(first.shape)):
        several = best[axis] if len(best[axis]) > 1 else set() if best[axis] else given[axis]
        if first.shape[axis] is None and len(several) > 1:
            numbers = " and ".join(map(str, sorted(size for size in several if size is not None)))
            what = f"the old shapes of '{name}' give images of several sizes ({numbers}), and an engine here takes one"
            raise RecipeError(what, remedy="Give all profiles one height and width, or a recipe to each")
    sizes = tuple(size or next(iter(b or g), None) for size, b, g in zip(first.shape, best, given, strict=True))
    taken = [axis for axis in range(1, len(first.shape)) if first.shape[axis] is None and given[axis]]
    if taken:
        words = f"the file leaves sizes of '{first.name}' open: {_text(sizes)} is taken from the old shapes"
        unlike = [shape.sizes for shape in ours if any(shape.sizes[axis] not in (sizes[axis], None) for axis in taken)]
        others = ", ".join(sorted({_text(one) for one in unlike}))
        said.append(f"{words}, and {others} is not: an engine here takes one size" if others else words)
    return sizes[1:], said


def _refuse_other(first: Tensor, shape: OldShape, model: Path) -> None:
    pairs = list(zip(first.shape[1:], shape.sizes[1:], strict=False))
    if len(shape.sizes) == len(first.shape) and all(None in (a, b) or a == b for a, b in pairs):
        return
    what = f"the old {shape.kind} shape of '{shape.name}' is {_text(shape.sizes)}, and {model} takes {_text(first.shape)}"
    raise RecipeError(what, remedy="Name the ONNX file that the shapes are of by --onnx, or correct them")


def _text(sizes: Sequence[int | None]) -> str:
    """Without the batch, which has its own key."""
    return f"[{', '.join(['N', *(str(size or '?') for size in sizes[1:])])}]"
