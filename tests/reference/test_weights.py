"""Weights from every place they come from, and what is wrong with those that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from toolkit.draft import draft
from toolkit.errors import WeightsError
from toolkit.recipe import Reference
from toolkit.reference.resnet import ResNet
from toolkit.reference.weights import digest, load_reference

State = dict[str, Tensor]


def reference(path: Path | str, arch: str = "resnet18", stem: Any = "small", **keys: Any) -> Reference:
    return Reference(arch=arch, weights=str(path), stem=stem, **keys)


@pytest.fixture
def state() -> State:
    """A thin ResNet-18 for 5 classes and one channel, with the small stem."""
    torch.manual_seed(1)
    return ResNet("resnet18", classes=5, channels=1, width=0.125, stem="small").state_dict()


def save(path: Path, content: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


def same(model: nn.Module, state: State) -> bool:
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
def test_a_file_tells_its_own_shape(tmp_path: Path, state: State, suffix: str) -> None:
    model = load_reference(reference(save(tmp_path / f"w{suffix}", state)))
    assert same(model, state)
    assert not model.training
    assert model.fc.out_features == 5
    assert model(torch.zeros(1, 1, 28, 28)).shape == (1, 5)


@pytest.mark.parametrize("nest", ["state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_nesting_and_wrapper_prefixes_are_taken_off(tmp_path: Path, state: State, nest: str, prefix: str) -> None:
    content = {nest: {prefix + name: value for name, value in state.items()}, "epoch": 3}
    assert same(load_reference(reference(save(tmp_path / "w.pth", content))), state)


def test_half_precision_files_become_float32(tmp_path: Path, state: State) -> None:
    stored = {name: value.half() if value.ndim > 1 else value for name, value in state.items()}
    model = load_reference(reference(save(tmp_path / "w.safetensors", stored)))
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32, torch.int64}
    assert same(model, {name: value.to(state[name].dtype) for name, value in stored.items()})


def test_files_older_than_num_batches_tracked_load(tmp_path: Path, state: State) -> None:
    old = {name: value for name, value in state.items() if "num_batches" not in name}
    assert same(load_reference(reference(save(tmp_path / "w.pth", old))), state)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_packaged_weights_bring_their_architecture(arch: str) -> None:
    model = load_reference(reference(f"packaged:fashion-{arch}", arch))
    assert model(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


def test_the_recipes_own_width_and_stem_come_first(tmp_path: Path, state: State) -> None:
    path = save(tmp_path / "w.pth", state)
    with pytest.raises(WeightsError, match=r"'conv1\.weight' has the shape \[8, 1, 3, 3\], the network wants \[16, 1, 3, 3\]"):
        load_reference(reference(path, width=0.25))
    with pytest.raises(WeightsError, match=r"'conv1\.weight' .* wants \[8, 1, 7, 7\]"):
        load_reference(reference(path, stem="imagenet"))


def test_a_file_that_lacks_a_few_tensors_is_named_for_what_it_nearly_is(tmp_path: Path, state: State) -> None:
    """The tensor, the architecture, and no advice to export a network that it is not; without `arch` as well."""
    path = save(tmp_path / "w.pth", {name: value for name, value in state.items() if name != "layer3.1.conv2.weight"})
    lacks = r"has no tensor 'layer3\.1\.conv2\.weight'\. But for layer3\.1\.conv2\.weight it is a resnet18: .*torch\.save"
    with pytest.raises(WeightsError, match=lacks):
        load_reference(reference(path))
    assert draft(path).recipe.reference.arch == "resnet18"


@pytest.mark.parametrize(("share", "words"), [(0, "is empty"), (0.1, "is cut short: [0-9,]+ bytes"), (0.9, "is cut short")])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_is_cut_short_is_said_so_in_a_whole_sentence(
    tmp_path: Path, state: State, share: float, words: str, zipped: bool
) -> None:
    path = tmp_path / "w.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(WeightsError, match=rf"w\.pth {words}.*\. Fetch the file again$") as caught:
        load_reference(reference(path))
    assert "miniz" not in str(caught.value)


def test_v1_and_v15_share_weights_and_differ_in_answers(tmp_path: Path) -> None:
    model = ResNet("resnet50", width=0.125)
    path = save(tmp_path / "w.pth", model.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        v1, v15 = (load_reference(reference(path, "resnet50", None, version=version))(images) for version in ("v1", "v1.5"))
    assert not torch.allclose(v1, v15)


def test_another_architecture_is_told_by_its_tensors(tmp_path: Path, state: State) -> None:
    path = save(tmp_path / "w.pth", state)
    with pytest.raises(WeightsError, match=r"'layer1\.0\.conv1\.weight' has the shape .* arch = \"resnet18\"") as caught:
        load_reference(reference(path, "resnet50"))
    assert "[8, 8, 3, 3], the network wants [8, 8, 1, 1]" in caught.value.what
    with pytest.raises(WeightsError, match=r"has no tensor 'layer1\.2\.conv1\.weight'.*resnet18"):
        load_reference(reference(path, "resnet34"))
    with pytest.raises(WeightsError, match=r'holds a resnet50, the recipe says resnet18\. Write arch = "resnet50"'):
        load_reference(reference("packaged:fashion-resnet50"))


def test_the_first_wrong_tensor_is_named(tmp_path: Path, state: State) -> None:
    path = tmp_path / "w.pth"
    without = {name: value for name, value in state.items() if name not in ("layer2.0.bn1.bias", "layer3.0.bn1.bias")}
    cases = {
        "has no tensor 'layer2.0.bn1.bias'": without,
        "has a tensor 'extra.weight' that": {**state, "extra.weight": torch.zeros(1)},
        "is not a ResNet by torchvision's names: it has blocks.0": {"blocks.0": torch.zeros(1)},
        "has no 2-dimensional tensor 'fc.weight'": {k: v for k, v in state.items() if not k.startswith("fc.")},
        "'layer1.1.bn2.weight' holds NaN": {**state, "layer1.1.bn2.weight": torch.full((8,), float("nan"))},
        "'fc.bias' holds NaN or infinity": {**state, "fc.bias": torch.tensor([0, 0, float("inf"), 0, 0])},
        "'bn1.running_var' holds a negative": {**state, "bn1.running_var": torch.full((8,), -1.0)},
        "'lr' is a float, not a tensor": {**state, "lr": 0.1},
        "holds no tensors": [1, 2],
    }
    for words, content in cases.items():
        with pytest.raises(WeightsError) as caught:
            load_reference(reference(save(path, content)))
        assert words in caught.value.what
        assert str(path) in caught.value.what
        assert caught.value.remedy


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 1, 100, 20_000, -1])
def test_a_file_that_was_cut_short(tmp_path: Path, state: State, suffix: str, keep: int) -> None:
    path = save(tmp_path / f"w{suffix}", state)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=rf"w{suffix}") as caught:
        load_reference(reference(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("text", ["no weights", "<html>404</html>", "\x80\x02K\x01.", "a\nb\nc\n"])
def test_a_file_that_is_something_else(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(WeightsError, match=name) as caught:
        load_reference(reference(tmp_path / name))
    assert "\n" not in str(caught.value)


class Trap:
    """Writes a file when a careless reader unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_cannot_run_code(tmp_path: Path, state: State) -> None:
    save(tmp_path / "w.pth", {**state, "trap": Trap(tmp_path / "sprung")})
    with pytest.raises(WeightsError, match="holds more than tensors"):
        load_reference(reference(tmp_path / "w.pth"))
    assert not (tmp_path / "sprung").exists()


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    for spec, words in (
        (tmp_path / "none.pth", "do not exist"),
        (tmp_path, "are a folder. Name a file of weights"),
        ("packaged:none", "Packaged are: packaged:fashion-resnet18, packaged:fashion-resnet50"),
        ("packaged:../packaged/fashion-resnet18", "Packaged are: "),
        ("packaged:a\0b", "Packaged are: "),
        (f"random:{'9' * 30}", "at most 18 digits"),
        ("random:", "has no seed"),
        ("random:-1", "has no seed"),
        ("torchvision:DEFAULT", "torchvision:IMAGENET1K_V1"),
        ("torchvision:IMAGENET1K_V2", "torchvision has no weights 'IMAGENET1K_V2' for resnet18"),
    ):
        with pytest.raises(WeightsError, match=words):
            load_reference(reference(spec))
    with pytest.raises(WeightsError, match="ONNX"):
        load_reference(Reference(onnx="model.onnx"))


def test_random_weights_follow_their_seed_alone() -> None:
    torch.manual_seed(5)
    first = load_reference(reference("random:3", width=0.25), channels=1, classes=7)
    torch.manual_seed(6)
    assert digest(first) == digest(load_reference(reference("random:3", width=0.25), channels=1, classes=7))
    assert digest(first) != digest(load_reference(reference("random:4", width=0.25), channels=1, classes=7))
    assert first(torch.zeros(2, 1, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "resnet152"])
def test_random_weights_keep_activations_sane(arch: str) -> None:
    """What BatchNorm gives has about zero mean and unit variance a channel, at any depth, on images like those it saw."""
    model = load_reference(reference("random:0", arch, width=0.25))
    outputs: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda _, __, output: outputs.append(output))
    noise = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    images = nn.functional.interpolate(noise, (64, 64), mode="bilinear")
    with torch.inference_mode():
        logits = model(images / images.std())
    for output in outputs:
        assert output.std().item() == pytest.approx(1, abs=0.5)
        assert abs(output.mean().item()) < 0.5
    assert 0.1 < logits.std() < 10
    assert len(set(logits.argmax(1).tolist())) > 1, "it tells images apart"


def test_the_digest_is_of_the_weights_and_not_of_the_file(tmp_path: Path, state: State) -> None:
    digests = {digest(load_reference(reference(save(tmp_path / name, state)))) for name in ("w.pth", "w.safetensors")}
    assert len(digests) == 1
    state["fc.bias"][0] += 1e-3
    assert digest(load_reference(reference(save(tmp_path / "w.pth", state)))) not in digests
