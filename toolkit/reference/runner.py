"""The PyTorch reference as a Runner, so that one accuracy function and one bench serve it and every engine alike."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from toolkit.errors import GraphError
from toolkit.images.dataset import class_names
from toolkit.manifest import Manifest
from toolkit.outputs import Outputs
from toolkit.recipe import Recipe
from toolkit.reference.names import label_names
from toolkit.reference.resnet import ResNet
from toolkit.reference.weights import digest, open_weights
from toolkit.runtime.runner import Runner
from toolkit.types import Array, Float, Meaning, Progress, TensorSpec


class TorchExecutor:
    """A module in eval mode behind the Executor protocol; it takes any N."""

    max_batch: int | None = None

    def __init__(self, model: nn.Module) -> None:
        self.model: nn.Module | None = model

    def run(self, batch: Array) -> Float:
        assert self.model is not None
        # torch warns of arrays that cannot be written, such as a memory-mapped file's
        images = torch.from_numpy(np.require(batch, requirements=["C", "W"]))
        with torch.inference_mode():
            logits: Float = self.model(images).numpy()
        return logits

    def close(self) -> None:
        self.model = None


def open_reference(recipe: Recipe, threads: int | None = None, progress: Progress | None = None) -> Runner:
    """The recipe's PyTorch reference on the CPU, in FP32. Raises WeightsError, DataError (class names).

    `threads` is torch's thread count, which it keeps for the whole process; absent, it stays as it is.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    classes = class_names(recipe)
    count = len(classes or ()) or 1000
    loaded = open_weights(recipe.reference, channels=recipe.preprocess.channels, classes=count, progress=progress)
    return reference_runner(loaded.model, recipe, loaded.notes)


def reference_runner(model: ResNet, recipe: Recipe, notes: tuple[str, ...] = ()) -> Runner:
    """A loaded reference as the recipe's Runner; `notes` say what was chosen when its weights were read."""
    return _runner(model, model.fc.out_features, recipe, notes)


def module_runner(model: nn.Module, recipe: Recipe, are: Meaning | None = None) -> Runner:
    """Any module as the recipe's Runner; `are`: what the end of its graph says of its columns. Raises GraphError where it takes
    no such images, or gives no [N, classes]."""
    shape, name = recipe.preprocess.input_shape, type(model).__name__
    try:
        with torch.inference_mode():
            found = model(torch.zeros(2, *shape))
    except Exception as error:  # whatever the user's code raises
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        what = f"the module {name} does not take images of {list(shape)}: {said}"
        raise GraphError(what, remedy="Set `size`, `color` and `layout` to what it takes") from error
    if not isinstance(found, torch.Tensor) or found.ndim != 2 or len(found) != 2 or not found.is_floating_point():
        given = f"a tensor of {found.dtype} {list(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
        what = f"the module {name} answers two images with {given}, not with logits [2, classes]"
        raise GraphError(what, remedy="Wrap it in a module that returns the logits alone")
    return _runner(model, found.shape[1], recipe, (), are)


def _runner(model: nn.Module, columns: int, recipe: Recipe, notes: tuple[str, ...], are: Meaning | None = None) -> Runner:
    how, said = recipe.preprocess.outside, recipe.reference.outputs_are
    meaning = Outputs(are=said or are or ("binary-logit" if columns == 1 else "logits"), threshold=recipe.reference.threshold)
    assumed = [meaning.assumption] if said is None and meaning.assumption else []
    manifest = Manifest(
        name=f"{recipe.name}-reference",
        target="cpu",
        file="",
        precision="fp32",
        inputs=(TensorSpec(name="input", dtype="float32", shape=("N", *how.input_shape)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("N", columns)),),
        profiles=(),
        preprocess=how,
        classes=label_names(class_names(recipe), meaning, columns, f"the reference of {recipe.name}"),
        outputs_are=meaning.are,
        threshold=meaning.threshold,
        hashes={"weights": digest(model)},
        versions={"torch": str(torch.__version__)},
        device="PyTorch on the CPU",
        settings={"threads": torch.get_num_threads()},
        recipe=recipe.to_dict(),
        notes=(*notes, *assumed),
    )
    return Runner(manifest, TorchExecutor(model))
