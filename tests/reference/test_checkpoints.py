"""Checkpoints as people have them: each loads to the function that wrote it, or is refused by what it is."""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.fuzz.bounds import bounds
from toolkit.draft import draft
from toolkit.errors import WeightsError
from toolkit.recipe import Reference
from toolkit.reference.resnet import ResNet
from toolkit.reference.weights import load_reference, open_weights

State = dict[str, Tensor]
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(7))


def warm(model: nn.Module) -> nn.Module:
    """Seeded weights and BatchNorm statistics that no two channels share, so that a wrong function shows."""
    random = torch.Generator().manual_seed(3)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=random)
        elif value.ndim == 1 and value.is_floating_point():
            value.normal_(0.3, 0.3, generator=random)
        elif value.ndim > 1:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=random)
    return model.eval()


def answers(model: nn.Module, images: Tensor = IMAGES) -> Tensor:
    with torch.inference_mode():
        result: Tensor = model(images)
    return result


def agree(ours: nn.Module, theirs: nn.Module, images: Tensor = IMAGES) -> None:
    right = answers(theirs, images)
    assert (answers(ours, images) - right).abs().max() <= 1e-5 * right.abs().max()


def reference(path: Path | str, arch: str = "resnet18", **keys: Any) -> Reference:
    return Reference(arch=arch, weights=str(path), **keys)


def refused(path: Path, arch: str = "resnet18", **keys: Any) -> str:
    """The message of the refusal: one line, which names the file and never advises to let it run."""
    with pytest.raises(WeightsError) as caught:
        load_reference(reference(path, arch, **keys))
    text = str(caught.value)
    assert caught.value.remedy
    assert "\n" not in text
    assert str(path) in text
    assert "weights_only" not in text
    return text


@pytest.fixture(scope="module")
def thin() -> ResNet:
    model = ResNet("resnet18", classes=5, width=0.125)
    warm(model)
    return model


@pytest.fixture
def state(thin: ResNet) -> State:
    return dict(thin.state_dict())


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def save(content: Any, name: str = "w.pth", **options: Any) -> Path:
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return save


# The first layers: what a 3x3 convolution does not say


@pytest.mark.parametrize("stem", ["cifar", "cifar-pool", "small"])
def test_a_3x3_stem_is_asked_for_and_then_right(torchvision: ModuleType, save: Any, stem: str) -> None:
    theirs = torchvision.models.resnet18(num_classes=10)
    theirs.conv1 = nn.Conv2d(3, 64, 3, 2 if stem == "small" else 1, 1, bias=False)
    if stem != "cifar-pool":
        theirs.maxpool = nn.Identity()
    warm(theirs)
    path = save(theirs.state_dict())
    text = refused(path)
    assert "3 x 3" in text
    assert all(f'"{name}"' in text for name in ("cifar", "cifar-pool", "small"))
    agree(load_reference(reference(path, stem=stem)), theirs, torch.randn(2, 3, 32, 32))


def test_a_stem_that_does_not_fit_is_told(save: Any, state: State) -> None:
    assert "the network wants [8, 3, 3, 3]. They fit without the recipe's `stem`" in refused(save(state), stem="cifar")
    state["conv1.weight"] = torch.zeros(8, 3, 5, 5)
    assert "its first convolution is 5 x 5" in refused(save(state))


class CifarBlock(nn.Module):
    """A basic block by the names of pytorch-cifar."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != planes:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))


class CifarNet(nn.Module):
    """ResNet-18 for 32x32 pixels by the names of pytorch-cifar, thin."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        widths = [8, 8, 16, 32, 64]
        for n, (a, b) in enumerate(itertools.pairwise(widths), 1):
            setattr(self, f"layer{n}", nn.Sequential(CifarBlock(a, b, 1 if n == 1 else 2), CifarBlock(b, b, 1)))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        logits: Tensor = self.linear(nn.functional.avg_pool2d(x, 4).flatten(1))
        return logits


def test_pytorch_cifars_names_tell_their_stem(save: Any) -> None:
    theirs = warm(CifarNet())
    loaded = open_weights(reference(save({"net": {f"module.{k}": v for k, v in theirs.state_dict().items()}, "acc": 95.1})))
    agree(loaded.model, theirs, torch.randn(2, 3, 32, 32))
    assert any("pytorch-cifar" in note for note in loaded.notes)


def test_pytorch_cifar100s_names_tell_their_stem(save: Any) -> None:
    theirs = warm(CifarNet())

    def name(ours: str) -> str:
        for old, new in (("conv1.", "conv1.0."), ("bn1.", "conv1.1.")):
            if ours.startswith(old):
                return ours.replace(old, new)
        for n in (1, 2, 3, 4):
            ours = ours.replace(f"layer{n}.", f"conv{n + 1}_x.")
        for n, part in ((0, "conv1"), (1, "bn1"), (3, "conv2"), (4, "bn2")):
            ours = ours.replace(f".{part}.", f".residual_function.{n}.")
        return ours.replace("linear.", "fc.")

    model = load_reference(reference(save({name(key): value for key, value in theirs.state_dict().items()})))
    agree(model, theirs, torch.randn(2, 3, 32, 32))


# Other functions by the same names


@pytest.mark.parametrize(("name", "arch"), [("wide_resnet50_2", "resnet50"), ("resnext50_32x4d", "resnet50")])
def test_torchvisions_wide_and_grouped_forms(torchvision: ModuleType, save: Any, name: str, arch: str) -> None:
    theirs = warm(torchvision.models.get_model(name, num_classes=4))
    loaded = open_weights(reference(save(theirs.state_dict()), arch))
    agree(loaded.model, theirs)
    assert any("3x3 convolutions" in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("name", "arch"), [("resnet18", "resnet18"), ("resnet18d", "resnet18"), ("resnet50c", "resnet50"), ("resnet50t", "resnet50")]
)
def test_timms_forms(torchvision: ModuleType, save: Any, name: str, arch: str) -> None:
    timm = pytest.importorskip("timm")
    theirs = warm(timm.create_model(name, num_classes=4))
    agree(load_reference(reference(save(theirs.state_dict()), arch)), theirs)


@pytest.mark.parametrize("pooled", [False, True])
def test_deep_stems_and_pooled_shortcuts(save: Any, pooled: bool) -> None:
    """ResNet-C and D by timm's names, against the same layers written out."""
    ours = ResNet("resnet18", classes=5, width=0.125)
    theirs = ResNet("resnet18", classes=5, width=0.125)
    theirs.conv1 = nn.Sequential(
        nn.Conv2d(3, 3, 3, 2, 1, bias=False), nn.BatchNorm2d(3), nn.ReLU(),
        nn.Conv2d(3, 6, 3, 1, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, 1, 1, bias=False),
    )  # fmt: skip
    for stage in (theirs.layer2, theirs.layer3, theirs.layer4) if pooled else ():
        block: Any = stage[0]
        old = block.downsample[0]
        pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
        block.downsample = nn.Sequential(pool, nn.Conv2d(old.in_channels, old.out_channels, 1, bias=False), block.downsample[1])
    warm(theirs)
    loaded = open_weights(reference(save(theirs.state_dict())))
    agree(loaded.model, theirs, torch.randn(2, 3, 72, 72))
    assert any("ResNet-D" in note for note in loaded.notes) == pooled
    assert list(loaded.model.state_dict()) != list(ours.state_dict())


def test_other_functions_are_refused_by_what_gives_them_away(save: Any, state: State, tmp_path: Path) -> None:
    cases: dict[str, State] = {
        "antialiased ResNet": {**state, "layer2.0.downsample.0.filt": torch.zeros(8, 1, 3, 3)},
        "squeeze-and-excitation": {**state, "layer1.0.se.fc1.weight": torch.zeros(2, 8)},
        "norms without running statistics": {k: v for k, v in state.items() if "running" not in k and "num_b" not in k},
        "no 'bn1.weight'": {k: v for k, v in state.items() if not k.startswith("bn1.")},
        "no classifier": {k: v for k, v in state.items() if not k.startswith("fc.")},
        "classifier of several layers: fc.0.weight, fc.3.weight": {
            **{k: v for k, v in state.items() if not k.startswith("fc.")},
            "fc.0.weight": torch.zeros(9, 64), "fc.0.bias": torch.zeros(9),
            "fc.3.weight": torch.zeros(5, 9), "fc.3.bias": torch.zeros(5),
        },
        "pruned by a mask": {k.replace("conv1.weight", "conv1.weight_orig"): v for k, v in state.items()},
        "CLIP's ResNet": {f"visual.{k}".replace("fc.", "attnpool."): v for k, v in state.items()},
        "a network of torchvision's `features` kind": {"features.0.weight": torch.zeros(8, 3, 3, 3)},
        "a ResNet's children in an nn.Sequential": {f"features.{n}.weight": torch.zeros(8) for n in ("0", "4.0.conv1")},
        "It has 3, 2, 2, 2 blocks": state | {k.replace("layer1.1", "layer1.2"): v for k, v in state.items()},
    }  # fmt: skip
    for words, content in cases.items():
        text = refused(save(content))
        assert words in text
        assert "torch.onnx.export" in text or "classifier" in text or "torch.nn.utils" in text
    # nothing in the tensors tells these; the file's own words do
    assert "calls itself 'resnetblur50'" in refused(save({"arch": "resnetblur50", "state_dict": state}))
    assert "calls itself 'resnetaa50d'" in refused(save({"args": argparse.Namespace(model="resnetaa50d"), "state_dict": state}))
    assert "calls itself 'resnetblur50-84f4748f'" in refused(save(state, "resnetblur50-84f4748f.pth"))
    (tmp_path / "config.json").write_text('{"architecture": "resnetblur50"}')
    assert "calls itself 'resnetblur50'" in refused(save(state, "pytorch_model.bin"))


# What stands around the tensors


def test_averaged_weights_beside_raw_ones(save: Any, state: State, thin: ResNet) -> None:
    mean = {f"module.{name}": value * 0.5 if value.is_floating_point() else value for name, value in state.items()}
    path = save({"model": state, "model_ema": {"n_averaged": torch.tensor(9), **mean}, "epoch": 3})
    loaded = open_weights(reference(path))
    agree(loaded.model, thin)
    assert "`model` was taken; the file also holds `model_ema.module` (`reference.ema = true` takes" in loaded.notes[0]
    averaged = open_weights(reference(path, ema=True))
    assert torch.equal(averaged.model.fc.bias, state["fc.bias"] * 0.5)
    assert "`model_ema.module` was taken" in averaged.notes[0]
    assert load_reference(reference(path, ema=False)).fc.bias.equal(state["fc.bias"])
    assert "no averaged weights, only `state_dict`" in refused(save({"state_dict": state}), ema=True)
    only = save({"state_dict_ema": state})
    assert "averaged weights only, `state_dict_ema`" in open_weights(reference(only)).notes[0]
    assert "holds averaged weights only" in refused(only, ema=False)


def test_swas_own_state_dict(save: Any, thin: ResNet) -> None:
    swa = torch.optim.swa_utils.AveragedModel(thin)
    swa.update_parameters(thin)
    loaded = open_weights(reference(save(swa.eval().state_dict())))
    agree(loaded.model, thin)
    said = " / ".join(loaded.notes)
    assert "these are averaged weights (SWA or EMA" in said
    assert "the prefix `module.` was taken off" in said
    assert "left out, as no part of the network: n_averaged" in said


@pytest.mark.parametrize("prefix", ["model.", "backbone.", "encoder.", "net.resnet.", "module.", "_orig_mod.", "a.b.c.d."])
def test_any_one_prefix_is_taken_off_and_said(save: Any, state: State, thin: ResNet, prefix: str) -> None:
    content = {f"{prefix}{name}": value for name, value in state.items()}
    content["criterion.weight"] = torch.ones(5)
    content["train_acc.total"] = torch.tensor(3)
    loaded = open_weights(reference(save({"state_dict": content, "hyper_parameters": {"lr": 0.1}})))
    agree(loaded.model, thin)
    said = " / ".join(loaded.notes)
    assert ("prefix" in said) == (prefix != "_orig_mod.")
    assert "left out, as no part of the network: criterion.weight, train_acc.total" in said


def test_wrappers_inside_of_names(save: Any, state: State, thin: ResNet) -> None:
    inner = {name.replace("layer3.", "layer3._orig_mod.").replace("layer2.", "layer2._checkpoint_wrapped_module."): value
             for name, value in state.items()}  # fmt: skip
    agree(load_reference(reference(save(inner))), thin)


@pytest.mark.parametrize("head", ["fc.1.", "fc.0.", "linear.", "head.fc.", "last_linear.", "classifier."])
def test_classifiers_by_other_names(save: Any, state: State, thin: ResNet, head: str) -> None:
    """`head.fc.` beside `backbone.` is mmpretrain's."""
    prefix = "backbone." if head == "head.fc." else ""
    content = {head + k.removeprefix("fc.") if k.startswith("fc.") else prefix + k: v for k, v in state.items()}
    loaded = open_weights(reference(save({"state_dict": content, "meta": {"epoch": 1}})))
    agree(loaded.model, thin)
    assert any(f"`{head}` was read as the classifier" in note for note in loaded.notes)
    assert any("followed by something" in note for note in loaded.notes) == (head == "fc.0.")


def test_hugging_faces_names(save: Any, state: State, thin: ResNet) -> None:
    def name(ours: str) -> str:
        for n in range(4):
            ours = ours.replace(f"layer{n + 1}.", f"encoder.stages.{n}.layers.")
        for n in (0, 1):
            ours = ours.replace(f".conv{n + 1}.", f".layer.{n}.convolution.")
            ours = ours.replace(f".bn{n + 1}.", f".layer.{n}.normalization.")
        for n, part in enumerate(("convolution", "normalization")):
            ours = ours.replace(f"downsample.{n}", f"shortcut.{part}")
        ours = ours.replace("fc.", "classifier.1.")
        for old, new in (("conv1.", "embedder.embedder.convolution."), ("bn1.", "embedder.embedder.normalization.")):
            ours = new + ours.removeprefix(old) if ours.startswith(old) else ours
        return ours if ours.startswith("classifier") else f"resnet.{ours}"

    agree(load_reference(reference(save({name(key): value for key, value in state.items()}))), thin)


def test_a_stride_that_only_the_configuration_tells(save: Any, tmp_path: Path) -> None:
    model = ResNet("resnet50", classes=3, width=0.125, version="v1")
    warm(model)
    caffe = {"meta": {"cfg": "model = dict(backbone=dict(type='ResNet', style='caffe'))"}, "state_dict": model.state_dict()}
    assert 'Write version = "v1"' in refused(save(caffe), "resnet50")
    agree(load_reference(reference(save(caffe), "resnet50", version="v1")), model)
    path = save(model.state_dict(), "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"downsample_in_bottleneck": true}')
    assert 'Write version = "v1"' in refused(path, "resnet50")


def test_two_networks_are_asked_about(save: Any, state: State) -> None:
    both = {f"{side}.{name}": value for side in ("left", "right") for name, value in state.items()}
    assert "holds 2 networks: `left`, `right`" in refused(save(both))


def test_a_normalization_inside_the_model_is_not_dropped(save: Any, state: State) -> None:
    content = {f"model.{name}": value for name, value in state.items()} | {"normalize.mean": torch.zeros(3)}
    assert "has a tensor 'normalize.mean' that the network does not know" in refused(save(content))


# What a pickle holds beside tensors, without running it


@pytest.mark.parametrize("new", [True, False])
def test_objects_beside_the_tensors_are_not_imported(save: Any, state: State, thin: ResNet, new: bool) -> None:
    content = {"state_dict": state, "args": argparse.Namespace(lr=0.1), "best": np.float64(93.1), "log": Path("x")}
    agree(load_reference(reference(save(content, _use_new_zipfile_serialization=new))), thin)


@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel, lambda model: {"model": model, "epoch": 2}])
def test_a_whole_pickled_module_is_read_and_not_run(save: Any, thin: ResNet, wrap: Callable[[ResNet], Any]) -> None:
    loaded = open_weights(reference(save(wrap(thin))))
    agree(loaded.model, thin)
    assert any("whole pickled" in note and "its code was not run" in note for note in loaded.notes)


LAYERS: dict[str, tuple[str, nn.Module, str]] = {
    "another activation": ("layer1.0.relu", nn.LeakyReLU(0.1), "'layer1.0.relu' is LeakyReLU, a ResNet's is ReLU"),
    "no pool": ("maxpool", nn.Identity(), "'maxpool' is Identity, a ResNet's is MaxPool2d"),
    "a pool that rounds up": ("maxpool", nn.MaxPool2d(3, 2, 1, ceil_mode=True), "'maxpool' has ceil_mode True"),
    "the largest of the last layer": ("avgpool", nn.AdaptiveMaxPool2d(1), "'avgpool' is AdaptiveMaxPool2d"),
    "one more layer": ("layer2.0.act", nn.SiLU(), "'layer2.0.act' is SiLU, which a ResNet has not"),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_pickled_module_shows_layers_without_weights(save: Any, kind: str) -> None:
    """They are in no state dict, and were taken for a plain ResNet's in silence."""
    place, layer, said = LAYERS[kind]
    model = warm(ResNet("resnet18", classes=5, width=0.125))
    owner, _, name = place.rpartition(".")
    setattr(model.get_submodule(owner), name, layer)
    assert said in refused(save(model))


def test_a_pickled_module_that_ends_in_a_sigmoid_is_asked_what_its_columns_are(save: Any) -> None:
    model = warm(ResNet("resnet18", classes=5, width=0.125))
    model.fc = nn.Sequential(model.fc, nn.Sigmoid())
    path = save(model)
    assert "'fc.1' is Sigmoid" in refused(path) and 'outputs_are = "multilabel-logits"' in refused(path)
    assert load_reference(reference(path, outputs_are="multilabel-logits")).fc.out_features == 5


def test_a_pickled_module_tells_what_its_tensors_do_not(save: Any) -> None:
    """Stride and pooling of the stem; dilation, which no state dict shows."""
    cifar = ResNet("resnet18", classes=5, width=0.125, stem="cifar")
    warm(cifar)
    agree(load_reference(reference(save(cifar))), cifar)
    conv: Any = cifar.layer4[1].conv1  # type: ignore[union-attr]
    conv.dilation, conv.padding = (2, 2), (2, 2)
    assert "'layer4.1.conv1' has padding (2, 2)" in refused(save(cifar))


class Runs:
    """Calls `function` when a careless reader unpickles it."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Settings(dict[str, Any]):
    """A dict with attributes, as easydict's and mmengine's are; `Stages` a list of a class of its own."""

    def __init__(self, *pairs: Any, **named: Any) -> None:
        super().__init__(*pairs, **named)
        self.__dict__.update(self)


class Stages(list[int]):
    pass


def test_containers_of_classes_of_their_own_are_read_as_plain_ones(save: Any, state: State, thin: ResNet) -> None:
    content = {"state_dict": state, "hparams": Settings(lr=0.1, net=Settings(depth=18)), "stages": Stages([2, 2])}
    agree(load_reference(reference(save(content))), thin)


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_state_dict_in_a_list_is_found(save: Any, state: State, thin: ResNet, kind: Any) -> None:
    agree(load_reference(reference(save(kind([state, 7])))), thin)


def test_one_of_several_files_of_a_model_is_told_how_to_merge_them(save: Any, state: State) -> None:
    half = dict(list(state.items())[:50])
    assert "is one of 2 files of a model" in refused(save(half, "pytorch_model-00001-of-00002.bin"))
    assert load_reference(reference(save(state, "pytorch_model-00001-of-00001.bin"))).fc.out_features == 5


def test_models_of_frameworks_are_told_what_exports_them(save: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, name, line in (
        ("ultralytics.nn.tasks", "ClassificationModel", "yolo export model="),
        ("fastai.learner", "Learner", "load_learner"),
    ):
        made = ModuleType(place)
        for depth in range(1, place.count(".") + 2):
            monkeypatch.setitem(sys.modules, ".".join(place.split(".")[:depth]), made)
        kind = type(name, (), {"__module__": place})
        setattr(made, name, kind)
        text = refused(save({"model": kind(), "epoch": 3}))
        assert f"{name}. " in text and line in text


def test_a_draft_of_another_network_says_what_it_is(save: Any, state: State) -> None:
    """It asked for `arch`, of which none fits."""
    inner = {f"layer{stage}.{block}.se.fc{n}.weight": torch.ones(1) for stage in (1, 2, 3, 4) for block in (0, 1) for n in (1, 2)}
    with pytest.raises(WeightsError, match="a ResNet with squeeze-and-excitation"):
        draft(save({**state, **inner}))


def test_a_file_that_would_run_something_is_called_that(save: Any, state: State, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    for function, arguments, words in (
        (os.system, (f"touch {sprung}",), "asks to run"),
        (eval, (f"open({str(sprung)!r}, 'w')",), "asks to run builtins.eval"),
        (Path.touch, (sprung,), "holds more than tensors"),
    ):
        assert words in refused(save({"state_dict": state, "extra": Runs(function, *arguments)}))
        assert not sprung.exists()


@pytest.mark.parametrize("zipped", [False, True])
def test_a_class_of_a_million_letters_takes_no_time(save: Any, state: State, tmp_path: Path, zipped: bool) -> None:
    """torch.load searched its own complaint about it for minutes."""
    written = b"\x80\x02c" + b"a" * 1_000_000 + b"\nb\n."
    path = tmp_path / "long.pth"
    path.write_bytes(written)
    if zipped:
        with zipfile.ZipFile(save(state)) as whole, zipfile.ZipFile(path, "w") as changed:
            for name in whole.namelist():
                changed.writestr(name, written if name.endswith("/data.pkl") else whole.read(name))
    with bounds():
        assert "holds more than tensors" in refused(path)


# Files of another kind


def test_archives_are_named_with_the_line_that_converts_them(thin: ResNet, tmp_path: Path, save: Any, state: State) -> None:
    script = tmp_path / "script.pt"
    torch.jit.trace(thin, IMAGES).save(str(script))  # type: ignore[no-untyped-call]
    text = refused(script)
    assert "is a TorchScript archive" in text
    line = text.partition('python -c "')[2].rpartition('"')[0]
    exec(line)  # as the reader would
    agree(load_reference(reference(tmp_path / "script-state.pth")), thin)

    torch.export.save(torch.export.export(thin, (IMAGES,)), tmp_path / "program.pt2")
    assert "is a program of torch.export" in refused(tmp_path / "program.pt2")
    with tarfile.open(tmp_path / "weights.pth.tar", "w") as tar:
        tar.add(save(state), "inner.pth")
    assert f"is a tar archive of inner.pth. Run: tar -xf {tmp_path / 'weights.pth.tar'}" in refused(tmp_path / "weights.pth.tar")
    agree(load_reference(reference(save(state, "checkpoint.pth.tar"))), thin)  # the examples' suffix, and no tar
    with tarfile.open(tmp_path / "old.pth", "w") as tar:
        for part in ("sys_info", "pickle", "storages", "tensors"):
            tar.addfile(tarfile.TarInfo(part), io.BytesIO())
    assert "a checkpoint of torch 0.1" in refused(tmp_path / "old.pth")
    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    assert "is a NumPy archive" in refused(tmp_path / "w.npz")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.jpg", b"")
    assert "is a ZIP archive of a.jpg" in refused(tmp_path / "photos.zip")


def test_other_files_are_told_by_their_first_bytes(tmp_path: Path, state: State, thin: ResNet) -> None:
    cases = {
        "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(99),
        "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "a web page": b"\n<!DOCTYPE html><html></html>",
        "compressed by gzip. Run: gunzip --keep": b"\x1f\x8b\x08" + bytes(99),
        "a NumPy array": b"\x93NUMPY" + bytes(99),
        "a TensorFlow Lite model. Run: python -m tf2onnx.convert --tflite": b"\x1c\0\0\0TFL3" + bytes(99),
        "in ONNX Runtime's own format. Give the ONNX file": b"\x1c\0\0\0ORTM" + bytes(99),
        "a network of OpenVINO. Give the ONNX file": b'<?xml version="1.0"?>\n<net name="x" version="11"></net>',
        "a TensorRT engine. Give the ONNX file": b"ftrt" + bytes(99),
    }
    for words, data in cases.items():
        (tmp_path / "w.pth").write_bytes(data)
        assert words in refused(tmp_path / "w.pth")
    named = {"a.plan": "a TensorRT engine", "a.mlmodel": "a Core ML model", "a.pdmodel": "a PaddlePaddle model"}
    for name, words in named.items():
        (tmp_path / name).write_bytes(b"\x7a" * 99)
        assert f"{name} is {words}, by its name. Give the ONNX file" in refused(tmp_path / name)
        (tmp_path / name).unlink()
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08")
    assert "is an ONNX file. To use it, write onnx = FILE" in refused(tmp_path / "m.onnx")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    assert "an index of several files" in refused(tmp_path / "model.safetensors.index.json")
    os.mkfifo(tmp_path / "pipe.pth")
    assert "not a regular file" in refused(tmp_path / "pipe.pth")
    save_file(state, tmp_path / "misnamed.pth")
    agree(load_reference(reference(tmp_path / "misnamed.pth")), thin)
    assert "Name the file in it: m.onnx, misnamed.pth" in refused(tmp_path)


def test_a_folder_given_as_a_model_is_told_as_one(tmp_path: Path, state: State) -> None:
    """It was said not to exist."""
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"are a folder\. Name the file in it: model\.safetensors"):
        draft(tmp_path)
    (tmp_path / "net.mlpackage").mkdir()
    with pytest.raises(WeightsError, match="It is a Core ML model"):
        draft(tmp_path / "net.mlpackage")


@pytest.mark.parametrize("prefix", ["model.", ""])
def test_a_teacher_in_the_same_state_dict_is_another_network(save: Any, state: State, thin: ResNet, prefix: str) -> None:
    """Its classifier was taken for a further layer of the student's."""
    other = {f"teacher.{name}": value * 0 for name, value in state.items()}
    path = save({prefix + name: value for name, value in state.items()} | other)
    agree(load_reference(reference(path)), thin)


# Tensors that are no weights


def test_tensors_that_are_no_weights(save: Any, state: State) -> None:
    kernel = state["layer1.0.conv1.weight"]
    with torch.device("meta"):
        meta = torch.empty(kernel.shape)
    for words, value in {
        "is float8_e4m3fn: quantized": kernel.to(torch.float8_e4m3fn),
        "is qint8: quantized": torch.quantize_per_tensor(kernel, 0.1, 0, torch.qint8),
        "is int8: quantized": kernel.to(torch.int8),
        "is complex64": kernel.to(torch.complex64),
        "is bool": kernel > 0,
        "is on the meta device": meta,
        "is sparse": kernel.to_sparse(),
        "is larger than its data": torch.zeros(1).expand(kernel.shape),
    }.items():
        assert f"'layer1.0.conv1.weight' {words}" in refused(save({**state, "layer1.0.conv1.weight": value}))
    none = {**state, "fc.weight": torch.zeros(0, 64), "fc.bias": torch.zeros(0)}
    assert "has 0 classes" in refused(save(none))
    vast = {**state, "fc.weight": torch.zeros(1, 1).expand(1 << 40, 64)}
    assert "not a classifier's shapes" in refused(save(vast))
    empty = {**state, "bn1.weight": torch.zeros(0)}
    assert "shape" in refused(save(empty))


@pytest.mark.parametrize("width", ["abc", "nan", "inf", "-1", "1e9", "0", ""])
def test_metadata_that_does_not_fit(tmp_path: Path, state: State, width: str) -> None:
    save_file(state, tmp_path / "w.safetensors", {"width": width})
    assert f"its metadata says width '{width}'" in refused(tmp_path / "w.safetensors")


def test_a_stem_in_metadata_that_is_none(tmp_path: Path, state: State) -> None:
    save_file(state, tmp_path / "w.safetensors", {"stem": "huge"})
    assert "its metadata says stem 'huge'" in refused(tmp_path / "w.safetensors")


def test_colors_that_do_not_fit_the_first_convolution(save: Any, state: State) -> None:
    state["conv1.weight"] = state["conv1.weight"][:, :1].clone()
    path = save(state)
    with pytest.raises(WeightsError, match=r"takes pictures of 1 channel\(s\), .*gives 3\. Write color = \"L\""):
        open_weights(reference(path), channels=3)
    assert open_weights(reference(path), channels=1).model.conv1.weight.shape[1] == 1


NAMED = {
    "classes": {"classes": ["ant", "bee", "cat"]},
    "class_to_idx": {"class_to_idx": {"cat": 2, "ant": 0, "bee": 1}},
    "idx_to_class": {"meta": {"idx_to_class": {2: "cat", 0: "ant", 1: "bee"}}},
    "CLASSES": {"meta": {"CLASSES": ("ant", "bee", "cat")}},
    "class_names": {"args": argparse.Namespace(class_names=["ant", "bee", "cat"])},
}


@pytest.mark.parametrize("key", NAMED)
def test_class_names_in_a_checkpoint_are_not_passed_over_in_silence(key: str, state: State, save: Callable[..., Path]) -> None:
    path = save({"state_dict": state, **NAMED[key]})
    said = f"the class names in `{key}` (ant, bee, cat) are not used: list them in `reference.classes`"
    assert any(said in note for note in open_weights(reference(path)).notes)
    assert any(said in line for line in draft(path).told)
    assert not any(key in note for note in open_weights(reference(path, classes="names.txt")).notes), "the recipe names them"


def test_names_beside_a_checkpoint_and_what_is_none(state: State, save: Callable[..., Path]) -> None:
    others = {"classes": [0, 1, 2], "class_to_idx": {"ant": 0, "bee": 2}, "categories": [], "class_names": {"a": "b"}}
    path = save({"state_dict": state, **others})
    assert not any("class names" in note for note in open_weights(reference(path)).notes)
    for first, wanted in (("LABEL_0", False), ("tench", True)):
        names = {str(i): f"LABEL_{i}" for i in range(5)} | {"0": first}
        (path.parent / "config.json").write_text(json.dumps({"id2label": names}))
        said = "`id2label` (tench, LABEL_1, LABEL_2, LABEL_3, ... (5))"
        assert any(said in note for note in open_weights(reference(path)).notes) == wanted


def test_an_archive_of_zeros_is_refused_before_it_fills_the_memory(tmp_path: Path, save: Callable[..., Path]) -> None:
    """Packed they are a thousandth of it."""
    path = save({"fc.weight": torch.zeros(30_000_000)}, "plain.pth")
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member))
    assert "bytes, and would be 120,00" in refused(tmp_path / "w.pth")
