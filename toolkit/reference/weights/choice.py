"""What a file holds -> the tensors of one network: out of nested dicts, raw or averaged, without what stands around them.

Every choice is said in a note: which of several networks was taken, which prefix was taken off, what was left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from toolkit.errors import WeightsError
from toolkit.reference.resnet import Stem
from toolkit.reference.weights.files import AGAIN
from toolkit.reference.weights.layouts import Trunk, is_counter, renamed, trunks, unwrapped
from toolkit.reference.weights.records import Record, is_module, state_of
from toolkit.reference.weights.refusals import EXPORT, refuse_foreign, refuse_signs

_AVERAGED = re.compile(r"(^|[._])(ema\w*|\w*_ema|averaged?|avg|swa|shadow|teacher|momentum|polyak)([._]|$)", re.IGNORECASE)
# Beside a network and no part of it: an average's count, a loss, metrics.
_BESIDE = re.compile(
    r"(.*\.)?(n_averaged|num_updates|decay|steps?)"
    r"|(.*\.)?(criterion|loss|\w*loss\w*|\w*_criterion|\w*metrics?\w*|\w*(acc|accuracy|auroc|f1|precision|recall|confmat))(\..*)?"
)
_TRUNK = re.compile(r"(conv1|bn1|layer\d+)\.")
_HEAD = re.compile(r"(.*\.)?(fc|head|classifier|linear|last_linear|head_fc)(\.\d+)?\.weight")
_DEEPEST = 5


class Picked(NamedTuple):
    """The tensors of one network by torchvision's names, what is known of its stem, and what was chosen on the way."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    stem: Stem | None = None
    module: Record | None = None  # the pickled module that the tensors were read from


class _Candidate(NamedTuple):
    where: str  # keys on the way, and the prefix: how it is called in a message
    state: dict[str, Any]
    trunk: Trunk
    module: Record | None

    @property
    def averaged(self) -> bool:
        return _AVERAGED.search(self.where) is not None


def pick(where: str, content: Any, averaged: bool | None = None) -> Picked:
    """The network in `content`; of raw and averaged weights side by side the raw ones, unless `averaged`.

    Raises WeightsError where there is none, or where it cannot be told which of several is meant.
    """
    found = list(_candidates(content))
    if not found:
        _refuse(where, content)
    one, notes = _one(where, found, averaged)
    state = _own(one, found)
    inside = {renamed(name, one.trunk): value for name, value in state.items()}
    if one.trunk.prefix:
        notes.append(f"the prefix `{one.trunk.prefix}` was taken off every name")
    if one.trunk.layout.name != "torchvision":
        notes.append(f"the names are those of {one.trunk.layout.name}, read as torchvision's")
    if one.module is not None:
        notes.append(f"a whole pickled {one.module.path}: its tensors were taken, its code was not run")
    tensors, more = _without_surroundings(where, inside)
    return Picked(tensors, (*notes, *more), one.trunk.layout.stem, one.module)


def _own(one: _Candidate, found: list[_Candidate]) -> dict[str, Any]:
    """The entries of a network's state dict, without those of another that lies in the same one under a prefix of its own."""
    beside = [other for other in found if other.state is one.state]
    kept = {}
    for name, value in ((unwrapped(name), value) for name, value in one.state.items()):
        owners = [other for other in beside if name.startswith(other.trunk.prefix)]
        if not owners or max(owners, key=lambda other: len(other.trunk.prefix)) is one:
            kept[name] = value
    return kept


def _candidates(value: Any, keys: tuple[str, ...] = (), depth: int = 0) -> Iterator[_Candidate]:
    """Every network in nested dicts and pickled modules."""
    module = value if is_module(value) else None
    if module is not None:
        value = state_of(module)
    if depth == 0 and isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping) or depth > _DEEPEST:
        return
    state = {str(name): tensor for name, tensor in value.items()}
    names = [unwrapped(name) for name, tensor in state.items() if isinstance(tensor, Tensor)]
    for trunk in trunks(names):
        yield _Candidate(".".join((*keys, trunk.prefix)).strip("."), state, trunk, module)
    for name, inner in state.items():
        if isinstance(inner, (Mapping, Record)):
            yield from _candidates(inner, (*keys, name), depth + 1)


def _one(where: str, found: list[_Candidate], averaged: bool | None) -> tuple[_Candidate, list[str]]:
    raw, mean = [one for one in found if not one.averaged], [one for one in found if one.averaged]
    if averaged and not mean:
        names = ", ".join(f"`{one.where or 'the state dict'}`" for one in found)
        raise WeightsError(f"{where} holds no averaged weights, only {names}", remedy="Remove `ema = true` from [reference]")
    if averaged is False and not raw:
        what = f"{where} holds averaged weights only: `{mean[0].where}`"
        raise WeightsError(what, remedy="Remove `ema = false` from [reference]")
    pool = mean if averaged or not raw else raw
    if len(pool) > 1:
        names = ", ".join(f"`{one.where}`" for one in pool)
        line = f"torch.save({{k.removeprefix('{pool[0].trunk.prefix}'): v for k, v in state_dict.items() if ...}}, 'one.pth')"
        raise WeightsError(f"{where} holds {len(pool)} networks: {names}", remedy=f"Save the one that is meant alone: {line}")
    notes = []
    if mean and raw:
        other = (raw if averaged else mean)[0]
        key = "`reference.ema = true` takes the averaged ones" if not averaged else "as `reference.ema` says"
        notes.append(f"`{pool[0].where}` was taken; the file also holds `{other.where}` ({key})")
    elif mean:
        notes.append(f"the file holds averaged weights only, `{pool[0].where}`")
    elif any(unwrapped(name).endswith("n_averaged") for name in pool[0].state):
        notes.append("these are averaged weights (SWA or EMA, with `n_averaged`)")
    elif pool[0].where and "." not in pool[0].where and not pool[0].trunk.prefix:
        notes += [f"`{pool[0].where}` of the file was taken"] if pool[0].where not in ("state_dict", "model") else []
    return pool[0], notes


def _without_surroundings(where: str, inside: dict[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """The trunk and its classifier as `fc.`; what lies beside is left out where it is known to be no part of the function."""
    notes: list[str] = []
    rest = [name for name in inside if not _TRUNK.match(name)]
    head = _head(where, inside, rest)
    beside = [name for name in rest if not (head and name.startswith(head)) and _BESIDE.fullmatch(name)]
    if beside:
        notes.append(f"left out, as no part of the network: {', '.join(beside[:4])}{', ...' if len(beside) > 4 else ''}")
    if head not in (None, "fc."):
        notes.append(f"`{head}` was read as the classifier `fc.`")
        if head == "fc.0.":
            notes.append("`fc.0.` was followed by something that has no tensors: the answers are those before it")
    kept = {name: value for name, value in inside.items() if name not in beside and not is_counter(name)}
    named = {f"fc.{name.removeprefix(head)}" if head and name.startswith(head) else name: v for name, v in kept.items()}
    odd = next((name for name, value in named.items() if not isinstance(value, Tensor)), None)
    if odd is not None:
        refuse_signs(where, list(named))
        what = f"{where}: '{odd}' is a {_kind(named[odd])}, not a tensor"
        raise WeightsError(what, remedy="Save the state dict alone: torch.save(model.state_dict(), path)")
    return named, notes


def _head(where: str, inside: dict[str, Any], rest: list[str]) -> str | None:
    """What stands before the classifier's `weight`; None where there is none. Raises WeightsError for several layers."""
    flat = [n for n in rest if isinstance(inside[n], Tensor) and inside[n].ndim == 2 and not _BESIDE.fullmatch(n)]
    heads = [name for name in flat if _HEAD.fullmatch(name)]
    if len(heads) > 1:
        what = f"{where} has a classifier of several layers: {', '.join(heads)}"
        raise WeightsError(what, remedy=f"A ResNet here has one linear layer. {EXPORT}")
    return heads[0].removesuffix("weight") if heads else None


def _kind(value: Any) -> str:
    return value.path if isinstance(value, Record) else type(value).__name__


def _refuse(where: str, content: Any) -> None:
    """Raise WeightsError: what this is, as far as its names tell."""
    states = [state for state in _mappings(content) if any(isinstance(value, Tensor) for value in state.values())]
    if not states:
        keys = ", ".join(map(str, list(content)[:4])) if isinstance(content, Mapping) else ""
        held = f"only {keys or 'an empty dict'}" if isinstance(content, Mapping) else f"a {_kind(content)}"
        raise WeightsError(f"{where} holds no tensors: there is {held}", remedy=AGAIN)
    state = max(states, key=len)
    refuse_foreign(where, [unwrapped(str(name)) for name in state])


def _mappings(value: Any, depth: int = 0) -> Iterator[Mapping[Any, Any]]:
    if is_module(value):
        value = state_of(value)
    if isinstance(value, Mapping) and depth <= _DEEPEST:
        yield value
        for inner in value.values():
            yield from _mappings(inner, depth + 1)
