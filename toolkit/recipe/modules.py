"""Modules that live in this process: what a recipe made by `Recipe.of(module)` refers to, by a hash of it.

A recipe is text, and a module is not: the recipe holds `weights = "memory:HASH"`, and a copy of the module stays here under that
hash until the process ends. In another process such a recipe tells what an engine was built from, and cannot be built again.
"""

from __future__ import annotations

import copy
import hashlib
from typing import Any

from toolkit.errors import RecipeError, WeightsError

MEMORY = "memory:"
_HELD: dict[str, Any] = {}


def is_module(value: object) -> bool:
    """Whether `value` is a torch.nn.Module; torch is not imported to find out."""
    return any(kind.__module__ == "torch.nn.modules.module" and kind.__name__ == "Module" for kind in type(value).__mro__)


def digest(module: Any) -> str:
    """SHA-256 in hex over the names, shapes and float32 bytes of every tensor: the same weights give it from any file."""
    result = hashlib.sha256()
    for name, value in module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            result.update(f"{name}{list(value.shape)}".encode())
            result.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return result.hexdigest()


def fingerprint(module: Any) -> str:
    """`digest`, and what a state dict does not show: classes, plain attributes such as a stride or a scale, passing buffers."""
    result = hashlib.sha256(digest(module).encode())
    for name, part in module.named_modules():
        plain = {k: v for k, v in vars(part).items() if isinstance(v, (bool, int, float, str, tuple, list, type(None)))}
        shown = {k: text for k, v in sorted(plain.items()) if " at 0x" not in (text := repr(v))}  # an address tells nothing
        result.update(f"{name} {type(part).__module__}.{type(part).__qualname__} {shown}".encode())
    for name, value in module.named_buffers():
        result.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return result.hexdigest()


def hold(module: Any) -> str:
    """Keep a copy of a module in eval mode, in float32 on the CPU; `memory:FINGERPRINT` is what to find it by.

    What becomes of the module afterwards, such as further training, does not reach the copy. Raises RecipeError for a module in
    training mode, WeightsError for one that cannot be copied.
    """
    name = type(module).__name__
    training = next((path or name for path, part in module.named_modules() if part.training), None)
    if training is not None:
        raise RecipeError(f"'{training}' of the module {name} is in training mode", remedy="Call .eval() on it first")
    try:
        kept = copy.deepcopy(module).float().cpu()
        key = MEMORY + fingerprint(kept)
    except Exception as error:  # whatever a class of the user's raises when it is copied or asked for its state
        raise WeightsError(f"the module {name} cannot be copied: {error}", remedy="Export it to ONNX, and use that") from error
    for parameter in kept.parameters():
        parameter.requires_grad_(False)
    _HELD[key] = kept
    return key


def held(key: str) -> Any:
    """The module under `memory:HASH`. Raises RecipeError where another process held it."""
    if key not in _HELD:
        what = f"the reference was a module in the memory of another process (weights {key.removeprefix(MEMORY)[:12]})"
        raise RecipeError(what, remedy="Make the recipe again from the module: toolkit.Recipe.of(module)")
    return _HELD[key]
