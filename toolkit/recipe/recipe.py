"""Recipe: what is wanted. One TOML file is one engine; unknown keys and wrong types are errors that say what is allowed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import msgspec

from toolkit.disk.files import near, read_regular
from toolkit.errors import RecipeError
from toolkit.recipe.assumed import left_open, note, with_gray
from toolkit.recipe.flags import tables
from toolkit.recipe.modules import MEMORY
from toolkit.recipe.paths import PATHS, absolute
from toolkit.recipe.preprocess import Preprocess
from toolkit.recipe.refusals import refuse_model
from toolkit.recipe.text import explain, strip
from toolkit.recipe.toml import SIZE, read_toml
from toolkit.types import NAME, Frozen, Meaning, Target

ARCHITECTURES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
MOST_BATCH, MOST_IMAGES, MOST_THREADS = 1 << 24, 1 << 31, 1024
Method = Literal["auto", "minmax", "entropy", "percentile", "mse"]


def _is_profile(batch: tuple[Any, ...]) -> bool:
    return len(batch) == 3 and all(isinstance(b, int) for b in batch)


class Reference(Frozen, frozen=True):
    """What the engine must agree with: a PyTorch ResNet (`arch`, `weights`) or any ONNX image classifier (`onnx`)."""

    arch: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] | None = None
    weights: str | None = None
    version: Literal["v1", "v1.5"] = "v1.5"
    width: float | None = None  # absent: read from the weights
    stem: Literal["imagenet", "small", "cifar", "cifar-pool", "deep"] | None = None  # absent: read from the weights
    ema: bool | None = None  # averaged (EMA, SWA) weights, where a file holds both; absent: the raw ones, which is said
    onnx: str | None = None
    input: str | None = None  # which input of the ONNX file takes the image, where there are several
    feed: dict[str, Any] = {}  # what the others are given: a number, or an array of them
    output: str | None = None  # which output of the ONNX file holds the logits, or any tensor inside it
    outputs_are: Meaning | None = None  # absent: read off the graph; a multi-label network without its sigmoid must say so
    threshold: float | None = None  # a binary or multi-label column above it is a yes; absent: probability 0.5, logit 0
    offset: int = 0  # columns before the first class: TensorFlow's ImageNet models have one, the background
    classes: str | None = None  # a file with one class name a line

    def __post_init__(self) -> None:
        if self.in_memory and (self.arch or self.onnx):
            raise ValueError("`weights` of a module in memory stand alone, without `arch` or `onnx`")
        if not self.in_memory and (self.onnx is None) == (self.arch is None):
            raise ValueError("set either `arch` and `weights`, or `onnx`")
        if self.arch is not None and self.weights is None:
            raise ValueError("`arch` needs `weights`: a path, packaged:NAME, torchvision:IMAGENET1K_V1|V2 or random:SEED")
        if self.onnx is not None and self.weights is not None:
            raise ValueError("`weights` belongs to `arch`; an ONNX file carries its own")
        if self.width is not None and not 0 < self.width <= 64:
            raise ValueError("`width` must be above 0 and at most 64: it multiplies the 64 channels of the first stage")
        if self.onnx is None and (self.input or self.feed or self.output or self.offset):
            raise ValueError("`input`, `feed`, `output` and `offset` are about an `onnx` file")
        if self.offset < 0 or (self.threshold is not None and not math.isfinite(self.threshold)):
            raise ValueError("`offset` must be 0 or more, and `threshold` finite")

    @property
    def in_memory(self) -> bool:
        """Whether it is a module that `Recipe.of` was given."""
        return (self.weights or "").startswith(MEMORY)


class Precision(Frozen, frozen=True):
    """What the graph carries. `compute` is the type of everything that is not INT8 or FP8."""

    compute: Literal["fp32", "fp16", "bf16"] = "fp32"
    int8: bool = False
    fp8: bool = False  # E4M3 in place of INT8, for GPUs from sm89 on
    keep: tuple[str, ...] = ()  # layers left out of INT8 or FP8: node or module names, `*` allowed
    keep_fp32: tuple[str, ...] = ()  # layers left in FP32 where compute is fp16 or bf16
    weights: Literal["auto", "absmax", "mse"] = "auto"  # how a weight's scale is chosen, per output channel
    rounding: Literal["auto", "nearest", "compensated"] = "auto"  # compensated: the rest of its row makes up for a weight
    equalize: Literal["auto", "none", "pairs", "streams", "activations"] = "auto"  # each: what stands before it too
    bias_correction: bool | None = None  # absent: by measurement, like `auto`
    pools: bool = False  # tensorrt and rtx: a pair in front of average pools too, which then read INT8 or FP8
    reduce_range: bool | None = None  # weights that cannot saturate 16-bit sums; absent: as `build.cpu` says
    methods: dict[str, Method] = {}  # per tensor, instead of calibration.method

    def __post_init__(self) -> None:
        if self.int8 and self.fp8:
            raise ValueError("`int8` and `fp8` exclude each other")
        if self.keep and not self.quantized:
            raise ValueError("`keep` has no meaning without `int8 = true` or `fp8 = true`")
        if self.pools and not self.quantized:
            raise ValueError("`pools` has no meaning without `int8 = true` or `fp8 = true`")

    @property
    def quantized(self) -> bool:
        """Whether there are Q/DQ pairs, and so ranges to be calibrated."""
        return self.int8 or self.fp8


class Calibration(Frozen, frozen=True):
    """The images that set the activation ranges, and the method that reads the range off each histogram."""

    data: str | None = None  # needed for INT8; the packaged models have their own
    images: int = 512
    method: Method = "auto"  # by measurement, on images that the ranges are not drawn from
    percentile: float = 99.99  # 99.9 | 99.99 | 99.999
    ranges: str | None = None  # a ranges.json made before, instead of a pass over `data`

    def __post_init__(self) -> None:
        if not 1 <= self.images <= MOST_IMAGES:
            raise ValueError(f"`images` must be 1 to {MOST_IMAGES}: with none there is nothing to calibrate with")
        if self.percentile not in (99.9, 99.99, 99.999):
            raise ValueError("`percentile` must be 99.9, 99.99 or 99.999")


class Build(Frozen, frozen=True):
    """How a backend compiles. An option that the chosen library does not have is an error, never ignored."""

    target: str = "cpu"
    batch: tuple[int | tuple[int, int, int], ...] = (1, 8, 32)  # min, opt, max; or several such profiles
    threads: int | None = None  # cpu; absent: one, or all cores that the process may use, whichever the build finds faster
    spin: bool | None = None  # cpu: whether threads spin while they wait for each other within a call; absent: if faster
    cpu: Literal["any", "vnni"] = "any"  # INT8 on the CPU: right on every CPU, or the full range of weights for those with VNNI
    workspace_mib: int | None = None
    optimization_level: int | None = None  # 0 to 5
    timing_cache: bool = False
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"] = "none"
    version_compatible: bool = False
    refit: bool = False
    strip_weights: bool = False

    def __post_init__(self) -> None:
        Target.parse_many(self.target)
        if not self.batch or (not _is_profile(self.batch) and any(isinstance(b, int) for b in self.batch)):
            raise ValueError("`batch` must be [min, opt, max], or a list of several such profiles")
        for low, opt, high in self.profiles:
            if not 1 <= low <= opt <= high <= MOST_BATCH:
                raise ValueError(f"`batch` {[low, opt, high]} must be min <= opt <= max, from 1 to {MOST_BATCH}")
        for key, value, most in (("threads", self.threads, MOST_THREADS), ("workspace_mib", self.workspace_mib, 1 << 31)):
            if value is not None and not 1 <= value <= most:
                raise ValueError(f"`{key}` must be 1 to {most}")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise ValueError("`optimization_level` must be 0 to 5")

    @property
    def profiles(self) -> tuple[tuple[int, int, int], ...]:
        """Each (min, opt, max)."""
        batch: Any = self.batch
        return (batch,) if _is_profile(batch) else batch

    @property
    def max_batch(self) -> int:
        return max(high for _, _, high in self.profiles)


class Accept(Frozen, frozen=True):
    """What an engine may lose against its reference, on labeled images that calibration never saw."""

    data: str | None = None
    images: int | None = None  # at most so many; absent: all
    max_top1_drop: float = 0.5  # percentage points, one-sided 95 % confidence
    min_agreement: float = 0.98
    max_p99_ms: float | None = None

    def __post_init__(self) -> None:
        if not self.max_top1_drop >= 0 or not 0 <= self.min_agreement <= 1:  # so that nan, which refuses nothing, is refused
            raise ValueError("`max_top1_drop` must be 0 or more, and `min_agreement` 0 to 1")
        if (self.images is not None and self.images < 1) or (self.max_p99_ms is not None and not self.max_p99_ms > 0):
            raise ValueError("`images` must be at least 1, and `max_p99_ms` above 0")


class Recipe(Frozen, frozen=True):
    """One engine. Paths inside it are relative to the file it was read from (see `resolve`).

    >>> import toolkit
    >>> recipe = toolkit.Recipe.load("engines/fashion-resnet18-int8.toml")
    >>> recipe.name, recipe.precision.int8, recipe.accept.max_top1_drop
    ('fashion-resnet18-int8', True, 0.5)
    >>> toolkit.Recipe.of("my.onnx", int8=True, calibration="images/train", accept="images/val").name
    'my-int8'
    >>> toolkit.Recipe.of("my.onnx", int9=True)
    Traceback (most recent call last):
    toolkit.errors.RecipeError: there is no option 'int9'. Did you mean int8? ...
    """

    name: str
    reference: Reference
    preprocess: Preprocess = Preprocess()
    precision: Precision = Precision()
    calibration: Calibration = Calibration()
    build: Build = Build()
    accept: Accept = Accept()
    notes: tuple[str, ...] = ()  # why it is as it is, such as what `tune` found; build and manifest repeat them
    assumed: tuple[str, ...] = ()  # keys of [preprocess] that nobody said; found when it is read, not written

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError("`name` becomes a folder: letters, digits, dot, dash and underscore only, 200 at most")
        if self.reference.arch is not None and self.preprocess.layout != "NCHW":
            raise ValueError("a PyTorch ResNet takes `layout` NCHW; NHWC is for an `onnx` reference that does")
        if self.precision.quantized and self.calibration.ranges is None and self.calibration_data is None:
            kind = "int8" if self.precision.int8 else "fp8"
            raise ValueError(f"`{kind} = true` needs images: set `calibration.data`, or `calibration.ranges`")

    @property
    def calibration_data(self) -> str | None:
        """What `calibration.data` says; for a packaged model that says nothing, the training images that come with it."""
        packaged = (self.reference.weights or "").startswith("packaged:")
        return self.calibration.data or ("packaged:fashion-train" if packaged else None)

    @property
    def remarks(self) -> tuple[str, ...]:
        return (*self.notes, note(self.preprocess, self.assumed)) if self.assumed else self.notes

    @classmethod
    def of(cls, model: Any, **options: Any) -> Recipe:
        """The recipe of a torch.nn.Module in eval mode, the path of an ONNX file, or weights (then with `arch`), without a file.

        `options` are the keys of a recipe without their tables, such as `size=(32, 32)`, `int8=True`, `target="openvino"`;
        `calibration` and `accept` are images, or dicts of those tables' keys; `name` is made up where it is not given. Relative
        paths are against the current folder. Raises RecipeError, which names the options that exist.
        """
        kinds = {field.name: field.type for field in msgspec.structs.fields(cls) if isinstance(field.default, Frozen)}
        values = tables(model, options, {"reference": Reference, **kinds})
        try:
            return left_open(msgspec.convert(with_gray(values), cls), values.get("preprocess", {})).resolve(Path())
        except msgspec.ValidationError as error:
            raise RecipeError(f"{values['name']}: {explain(str(error), values, cls)}") from error

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a TOML file. Paths in it become absolute. Raises RecipeError with the file, the key and what is allowed."""
        if not isinstance(path, (str, Path)):
            raise RecipeError(f"{type(path).__name__} is not a recipe", remedy="Give the path of a recipe's .toml")
        path = Path(path)
        refuse_model(path)
        try:
            text = read_regular(path, SIZE).decode()
        except FileNotFoundError:
            raise RecipeError(f"there is no recipe {path}", remedy=near(path, "Write a first one: toolkit init MODEL")) from None
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"cannot read the recipe {path}: {error}") from error
        return cls.parse(text, where=str(path)).resolve(path.parent)

    @classmethod
    def parse(cls, text: str, where: str = "recipe") -> Recipe:
        """TOML text -> Recipe; raises RecipeError."""
        try:
            table = read_toml(text)
            return left_open(msgspec.convert(with_gray(table), cls), table.get("preprocess", {}))
        except msgspec.ValidationError as error:
            raise RecipeError(f"{where}: {explain(str(error), read_toml(text), cls)}") from error
        except ValueError as error:
            raise RecipeError(f"{where}: not valid TOML: {error}") from error

    def resolve(self, folder: Path) -> Recipe:
        """The same recipe with paths made absolute against `folder`."""
        tables: dict[str, Frozen] = {}
        for name, keys in PATHS.items():
            table = getattr(self, name)
            tables[name] = msgspec.structs.replace(table, **{key: absolute(getattr(table, key), folder) for key in keys})
        return msgspec.structs.replace(self, **tables)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without those that equal their default; `write.recipe_toml` writes them."""
        return strip(msgspec.to_builtins(self), msgspec.to_builtins(Recipe(name=self.name, reference=Reference(onnx="-"))))
