"""Remedies: changes of a recipe that the losses suggest, each run through the network before it is recommended.

1. Clipping: the tensors that the worst clipped layers read get min-max, or mean squared error, as their method.
2. Rounding: the tensors of the layers that rounding costs most get mean squared error, or entropy.
3. Weights: the other way to choose a weight's scale; bias correction.
4. The whole network: another calibration method, other equalization, unless `auto` has weighed them.
5. Layers leave INT8 (`keep`) or FP16 (`keep_fp32`), those that cost the logits most for their work first: as many as make up
   a third, two thirds and nine tenths of the loss.
What won something back is tried together with the best `keep`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from toolkit.recipe import Recipe
from toolkit.why.result import LayerLoss

SHARES = (0.33, 0.67, 0.9)  # of the loss that layers left out make up
MOST = 12  # layers that one remedy leaves out: with more, the engine is hardly INT8 any more
WORTH = 0.3  # dB that a remedy has to win back: less is no more than other images would move
PART = 0.04  # of the loss: a layer that costs less is not worth a line in a recipe


class Suggestion(NamedTuple):
    """A recipe to try. `free`: nothing but constants changes, so the engine's time stays."""

    what: str
    why: str
    recipe: Recipe
    free: bool


def weighed(notes: Iterable[str]) -> tuple[str, ...]:
    """The keys that `auto` chose for the whole network, by the notes of a build: on more images than remedies are tried on."""
    notes = tuple(notes)
    return tuple(key for key in ("method", "equalize") if any(note.startswith(f"auto: {key} = ") for note in notes))


def suggestions(recipe: Recipe, layers: Sequence[LayerLoss], settled: Sequence[str] = ()) -> Iterator[Suggestion]:
    """What to try, in this order; the keys in `settled` are not chosen again for the whole network."""
    ranked = sorted((layer for layer in layers if layer.share > 0), key=lambda layer: -layer.share)
    if recipe.precision.quantized:
        yield from _methods(recipe, ranked)
        yield from _weights(recipe, ranked)
        yield from _globals(recipe, settled)
        yield from leave_out(recipe, ranked, "keep")
    elif recipe.precision.compute != "fp32":
        yield from _overflows(recipe, ranked)
        yield from leave_out(recipe, ranked, "keep_fp32")


def _methods(recipe: Recipe, ranked: Sequence[LayerLoss]) -> Iterator[Suggestion]:
    """Steps 1 and 2."""
    for part, methods in (("clipping", ("minmax", "mse")), ("rounding", ("mse", "entropy"))):
        hit = [layer for layer in ranked if getattr(layer, part) * layer.share >= PART]
        tensors = tuple(dict.fromkeys(tensor for layer in hit for tensor in layer.reads))
        share = sum(getattr(layer, part) * layer.share for layer in hit)
        for method in methods if tensors else ():
            if all(_method_of(recipe, tensor) == method for tensor in tensors):
                continue
            chosen = {**recipe.precision.methods, **dict.fromkeys(tensors, method)}
            what = "methods = { " + ", ".join(f'"{tensor}" = "{method}"' for tensor in tensors) + " }"
            why = f"{part} of what {_names(hit)} read{'s' if len(hit) == 1 else ''} is {share:.0%} of the loss"
            yield Suggestion(what, why, _vary(recipe, methods=chosen), True)


def _weights(recipe: Recipe, ranked: Sequence[LayerLoss]) -> Iterator[Suggestion]:
    """Step 3."""
    share = sum(layer.weights * layer.share for layer in ranked)
    if share < 0.2:
        return
    why = f"rounding weights is {share:.0%} of the loss"
    if recipe.precision.rounding != "compensated":
        yield Suggestion('rounding = "compensated"', why, _vary(recipe, rounding="compensated"), True)
    other = "mse" if recipe.precision.weights == "absmax" else "absmax"
    yield Suggestion(f'weights = "{other}"', why, _vary(recipe, weights=other), True)
    if not recipe.precision.bias_correction:
        yield Suggestion("bias_correction = true", why, _vary(recipe, bias_correction=True), True)


def _globals(recipe: Recipe, settled: Sequence[str]) -> Iterator[Suggestion]:
    """Step 4."""
    if str(recipe.calibration.method) != "auto" and "method" not in settled:
        for method in ("minmax", "mse", "entropy", "percentile"):
            if method != recipe.calibration.method:
                calibration = msgspec.structs.replace(recipe.calibration, method=method)
                changed = msgspec.structs.replace(recipe, calibration=calibration)
                yield Suggestion(f'method = "{method}"', f"{recipe.calibration.method} is one of four", changed, True)
    modes = ("streams", "none") if recipe.precision.equalize == "pairs" else ("none",)
    if "equalize" in settled:
        return
    for mode in (m for m in modes if m != recipe.precision.equalize and str(recipe.precision.equalize) != "auto"):
        why = f"equalization of {recipe.precision.equalize} does not help every network"
        yield Suggestion(f'equalize = "{mode}"', why, _vary(recipe, equalize=mode), True)


def leave_out(recipe: Recipe, ranked: Sequence[LayerLoss], key: str) -> Iterator[Suggestion]:
    """Step 5: ever more layers."""
    order = sorted(ranked, key=lambda layer: layer.share / (layer.work + 0.01), reverse=True)
    given = getattr(recipe.precision, key)
    before = 0
    for goal in SHARES:
        chosen: list[LayerLoss] = []
        for layer in order:
            if sum(one.share for one in chosen) >= goal or len(chosen) == MOST:
                break
            chosen.append(layer)
        if len(chosen) == before or len(chosen) == len(order):
            continue
        before = len(chosen)
        names = tuple(layer.name for layer in chosen)
        share, work = sum(layer.share for layer in chosen), sum(layer.work for layer in chosen)
        why = f"{share:.0%} of the loss for {work:.1%} of the work"
        kept = tuple(dict.fromkeys((*given, *names)))
        yield Suggestion(f"{key} = {_list(names)}", why, _vary(recipe, **{key: kept}), False)


def _overflows(recipe: Recipe, ranked: Sequence[LayerLoss]) -> Iterator[Suggestion]:
    """Layers whose results float16 cannot hold, and those that read them."""
    over = {layer.output for layer in ranked if layer.peak > 65504}
    names = tuple(layer.name for layer in ranked if layer.output in over or over & set(layer.reads))
    if names:
        kept = tuple(dict.fromkeys((*recipe.precision.keep_fp32, *names)))
        why = f"{len(over)} result{'s' if len(over) > 1 else ''} above 65504"
        yield Suggestion(f"keep_fp32 = {_list(names)}", why, _vary(recipe, keep_fp32=kept), False)


def joined(recipe: Recipe, one: Recipe, other: Recipe) -> Recipe:
    """What both change against `recipe`, in one; where both change the same key, `other` has the last word."""
    precision = {
        key: getattr(other.precision, key) if getattr(other.precision, key) != getattr(recipe.precision, key) else value
        for key in recipe.precision.__struct_fields__
        for value in (getattr(one.precision, key),)
    }
    calibration = other.calibration if other.calibration != recipe.calibration else one.calibration
    return msgspec.structs.replace(_vary(one, **precision), calibration=calibration)


def _method_of(recipe: Recipe, tensor: str) -> str:
    return str(recipe.precision.methods.get(tensor, recipe.calibration.method))


def _list(names: Sequence[str]) -> str:
    """As TOML writes it."""
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


def _names(layers: Sequence[LayerLoss]) -> str:
    names = [layer.name for layer in layers]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _vary(recipe: Recipe, **precision: object) -> Recipe:
    return msgspec.structs.replace(recipe, precision=msgspec.structs.replace(recipe.precision, **precision))
