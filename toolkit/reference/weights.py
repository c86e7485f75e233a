"""A recipe's `[reference]` -> the PyTorch ResNet with its weights, in eval mode.

`weights` is a path (.pth, .pt or .safetensors), `packaged:NAME`, `torchvision:IMAGENET1K_V1|V2` or `random:SEED`. Width, stem,
input channels and classes come from the recipe where it names them, then from the file's metadata, then from tensor shapes.
Pickled files are read with `weights_only=True`, so that none can run code.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from toolkit.errors import WeightsError
from toolkit.images import PACKAGED
from toolkit.recipe import Reference
from toolkit.reference.published import published
from toolkit.reference.resnet import ARCHITECTURES, ResNet, Stem
from toolkit.types import Progress

_NESTS = ("state_dict", "model_state_dict", "model")  # where training scripts put the tensors inside a checkpoint
_PREFIXES = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before each name
_FOREIGN = "Torchvision's ResNets are known by their names and shapes; another model comes in as [reference] onnx = FILE"


class Weights(NamedTuple):
    """Tensors by torchvision's names, as they are in the file, and the file's own words about them."""

    where: str
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def load_reference(reference: Reference, *, channels: int = 3, classes: int = 1000, progress: Progress | None = None) -> ResNet:
    """The reference in eval mode, float32. Only `random:SEED` needs `channels` and `classes`; a file tells its own.

    `progress` counts the bytes of a download. Raises WeightsError.
    """
    if reference.arch is None or reference.weights is None:
        raise WeightsError("the recipe's reference is an ONNX file, which has no PyTorch weights")
    if reference.weights.startswith("random:"):
        return randomise(build(reference, channels, classes), _seed(reference.weights), channels)
    weights = read_weights(_file(reference.arch, reference.weights, progress))
    model = _shaped(reference, weights)
    _check(reference, model, weights)
    model.load_state_dict({name: weights.tensors.get(name, value) for name, value in model.state_dict().items()}, strict=True)
    return model.float().eval()


def build(reference: Reference, channels: int, classes: int, width: float = 1.0, stem: Stem = "imagenet") -> ResNet:
    """The network that a recipe names, with fresh weights; the recipe's own width and stem come first."""
    assert reference.arch is not None
    return ResNet(
        reference.arch,
        classes=classes,
        channels=channels,
        width=reference.width or width,
        stem=reference.stem or stem,
        version=reference.version,
    )


def read_weights(path: Path) -> Weights:
    """The tensors of a .safetensors, .pth or .pt file; nesting and wrapper prefixes are taken off. Raises WeightsError."""
    if not path.is_file():
        raise WeightsError(f"the weights {path} do not exist", remedy="Correct `weights` in the recipe's [reference]")
    metadata: dict[str, str] = {}
    content: Any
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, LookupError, UnicodeDecodeError) as error:
        what = f"{path} is no checkpoint, or holds more than tensors"
        raise WeightsError(what, remedy="Save it again: torch.save(model.state_dict(), path)") from error
    except (OSError, EOFError, RuntimeError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path} is damaged or cut short: {reason}", remedy="Fetch the file again") from error
    return Weights(str(path), _tensors(str(path), content), metadata)


def randomise(model: ResNet, seed: int, channels: int) -> ResNet:
    """Seeded weights, then BatchNorm statistics as they are on smooth noise, so that every activation has a sane scale.

    Each statistic is the average over four batches of eight images [channels, 64, 64] of unit variance.
    """
    random = torch.Generator().manual_seed(seed)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for parameter in model.parameters():
        if parameter.ndim > 1:  # He initialisation (2015, arXiv:1502.01852) by fan-in; kernels [out, in, ...]
            parameter.data.normal_(0, (2 / parameter[0].numel()) ** 0.5, generator=random)
    nn.init.zeros_(model.fc.bias)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches, not an exponential one
    model.train()
    with torch.no_grad():
        for _ in range(4):
            model(_smooth_noise(8, channels, random))
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def digest(model: nn.Module) -> str:
    """SHA-256 in hex over the names, shapes and float32 bytes of every tensor: the same weights give it from any file."""
    result = hashlib.sha256()
    for name, value in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            result.update(f"{name}{list(value.shape)}".encode())
            result.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return result.hexdigest()


def _smooth_noise(count: int, channels: int, random: torch.Generator) -> Tensor:
    """Noise with the falling spectrum of photographs: random grids of 4, 16 and 64 cells a side, blown up and added."""
    grids = [torch.randn(count, channels, cells, cells, generator=random) for cells in (4, 16, 64)]
    grown = [nn.functional.interpolate(grid, (64, 64), mode="bilinear") for grid in grids]
    image = torch.stack(grown).sum(0)
    return image / image.std()


def _seed(spec: str) -> int:
    text = spec.removeprefix("random:")
    if not text.isdecimal():
        raise WeightsError(f"'{spec}' has no seed", remedy="Write a whole number, such as random:0")
    return int(text)


def _file(arch: str, spec: str, progress: Progress | None) -> Path:
    kind, _, name = spec.partition(":")
    if kind == "torchvision":
        return published(arch, name, progress)
    if kind != "packaged":
        return Path(spec)
    path = PACKAGED / f"{name}.safetensors"
    if not path.is_file():
        names = ", ".join(f"packaged:{known.stem}" for known in sorted(PACKAGED.glob("*.safetensors")))
        raise WeightsError(f"no weights named '{name}' are packaged", remedy=f"Packaged are: {names}")
    return path


def _tensors(where: str, content: Any) -> dict[str, Tensor]:
    nest = next((key for key in _NESTS if isinstance(content, Mapping) and isinstance(content.get(key), Mapping)), None)
    content = content[nest] if nest is not None else content
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{where} holds no tensors", remedy="Save it again: torch.save(model.state_dict(), path)")
    result = {str(name): value for name, value in content.items()}
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in result):
            result = {name.removeprefix(prefix): value for name, value in result.items()}
    odd = next((name for name, value in result.items() if not isinstance(value, Tensor)), None)
    if odd is not None:
        what = f"{where}: '{odd}' is a {type(result[odd]).__name__}, not a tensor"
        raise WeightsError(what, remedy=f"Save the state dict alone, or nested under {', '.join(_NESTS)}")
    return result


def _shaped(reference: Reference, weights: Weights) -> ResNet:
    """The network that the recipe, the metadata and the tensors' shapes describe."""
    first, last = _end(weights, "conv1.weight", 4), _end(weights, "fc.weight", 2)
    known = weights.metadata.get("arch")
    if known is not None and known != reference.arch:
        raise WeightsError(f"{weights.where} holds a {known}, the recipe says {reference.arch}", remedy=f'Write arch = "{known}"')
    width = float(weights.metadata.get("width") or first.shape[0] / 64)
    small = weights.metadata.get("stem", "small" if first.shape[-1] == 3 else "imagenet") == "small"
    return build(reference, first.shape[1], last.shape[0], width, "small" if small else "imagenet")


def _end(weights: Weights, name: str, ndim: int) -> Tensor:
    """The first or the last kernel, whose shape says what goes in and comes out."""
    tensor = weights.tensors.get(name)
    if tensor is None or tensor.ndim != ndim:
        has = ", ".join(list(weights.tensors)[:3])
        raise WeightsError(f"{weights.where} has no {ndim}-dimensional tensor '{name}'; it has {has}, ...", remedy=_FOREIGN)
    return tensor


def _check(reference: Reference, model: ResNet, weights: Weights) -> None:
    """Raise WeightsError at the first tensor that is missing, of another shape, not finite, or one too many."""
    wanted = model.state_dict()
    for name, value in wanted.items():
        found = weights.tensors.get(name)
        if found is None:
            if name.endswith("num_batches_tracked"):  # older files lack it; inference does not read it
                continue
            raise WeightsError(f"{weights.where} has no tensor '{name}'", remedy=_remedy(reference, weights))
        if found.shape != value.shape:
            what = f"{weights.where}: '{name}' has the shape {list(found.shape)}, the network wants {list(value.shape)}"
            raise WeightsError(what, remedy=_remedy(reference, weights))
        if not torch.isfinite(found).all():
            raise WeightsError(f"{weights.where}: '{name}' holds NaN or infinity", remedy="Take an earlier checkpoint")
        if name.endswith("running_var") and (found < 0).any():
            raise WeightsError(f"{weights.where}: '{name}' holds a negative variance", remedy="Take an earlier checkpoint")
    extra = next((name for name in weights.tensors if name not in wanted), None)
    if extra is not None:
        what = f"{weights.where} has a tensor '{extra}' that the network does not know"
        raise WeightsError(what, remedy=_remedy(reference, weights))


def _remedy(reference: Reference, weights: Weights) -> str:
    """The architecture whose names and shapes these tensors do fit, if there is one."""
    shapes = {name: value.shape for name, value in weights.tensors.items() if not name.endswith("num_batches_tracked")}
    for arch in ARCHITECTURES:
        with torch.device("meta"):
            model = _shaped(msgspec.structs.replace(reference, arch=arch), weights._replace(metadata={}))
        if shapes == {n: v.shape for n, v in model.state_dict().items() if not n.endswith("num_batches_tracked")}:
            return f'They fit arch = "{arch}"'
    return _FOREIGN
