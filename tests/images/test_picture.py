"""One picture -> network input, against torchvision's transforms and by hand."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.fuzz.bounds import bounds
from toolkit.errors import DataError, InputError
from toolkit.images.bounds import pixels_of
from toolkit.images.picture import pictures_of, preprocess, restore
from toolkit.recipe import Preprocess

PLAIN = Preprocess(size=(4, 6), mean=(0, 0, 0), std=(1, 1, 1), scale=1)
GREY = Preprocess(size=(4, 6), mean=(0,), std=(1,), scale=1, color="L")


def photographs() -> dict[str, Image.Image]:
    """Photographs that scikit-learn and scikit-image bring, in color and in grey, upright and lying."""
    datasets = pytest.importorskip("sklearn.datasets")
    data = pytest.importorskip("skimage.data")
    found = {name: datasets.load_sample_image(name) for name in ("china.jpg", "flower.jpg")}
    found |= {name: getattr(data, name)() for name in ("astronaut", "chelsea", "camera", "rocket")}
    pictures = {name: Image.fromarray(pixels) for name, pixels in found.items()}
    pictures["chelsea, upright"] = pictures["chelsea"].transpose(Image.Transpose.ROTATE_90)
    return pictures


def torchvisions(torchvision, picture: Image.Image, how: Preprocess) -> np.ndarray:
    """The same preprocessing written with torchvision's transforms."""
    transforms = torchvision.transforms
    mode = getattr(transforms.InterpolationMode, how.interpolation.upper())
    steps = [transforms.Resize(how.resize if how.resize else how.size, mode)]
    steps += [transforms.CenterCrop(how.size), transforms.ToTensor(), transforms.Normalize(how.mean, how.std)]
    return transforms.Compose(steps)(picture.convert("L" if how.color == "L" else "RGB")).numpy()


def grey_levels(got: np.ndarray, want: np.ndarray, how: Preprocess) -> float:
    """The largest difference, in steps of 1/255 before the normalization."""
    assert got.shape == want.shape
    assert got.dtype == np.float32
    return float(np.max(np.abs(got - want) * np.array(how.std)[:, None, None] * 255))


@pytest.mark.parametrize(
    "how",
    [
        Preprocess(resize=256),
        Preprocess(resize=232, interpolation="bicubic"),
        Preprocess(resize=300, size=(299, 180)),
        Preprocess(size=(160, 224)),
        Preprocess(size=(500, 700), interpolation="bicubic"),
        Preprocess(resize=64, size=(64, 64), interpolation="nearest"),
        Preprocess(resize=256, color="L", mean=(0.4,), std=(0.2,)),
    ],
    ids=lambda how: f"{how.resize}-{how.size}-{how.interpolation}-{how.color}",
)
def test_photographs_come_out_as_from_torchvision(how: Preprocess, torchvision) -> None:
    for name, picture in photographs().items():
        assert grey_levels(preprocess(picture, how), torchvisions(torchvision, picture, how), how) <= 1, name


SIDE, CROP = st.integers(1, 90), st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(size=st.tuples(SIDE, SIDE), crop=st.tuples(CROP, CROP), more=st.integers(0, 9))
def test_any_size_is_rounded_and_cropped_as_torchvision_does(
    torchvision, size: tuple[int, int], crop: tuple[int, int], more: int
) -> None:
    """Odd sizes are where the rounding of a resize or of a crop's corner goes wrong by a pixel."""
    height, width = size
    picture = Image.fromarray(np.random.default_rng(width * 100 + height).integers(0, 256, (height, width, 3), np.uint8))
    how = Preprocess(size=crop, resize=max(crop) + more)
    assert grey_levels(preprocess(picture, how), torchvisions(torchvision, picture, how), how) <= 1


def test_the_formula_on_a_picture_that_needs_no_resize() -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    how = Preprocess(size=(4, 6), mean=(1, 2, 3), std=(2, 4, 8), scale=0.5)
    want = (pixels * 0.5 - [1, 2, 3]) / [2, 4, 8]
    np.testing.assert_allclose(preprocess(pixels, how), want.transpose(2, 0, 1), rtol=1e-6)


def test_layout_and_color_order() -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    assert np.array_equal(preprocess(pixels, msgspec.structs.replace(PLAIN, layout="NHWC")), pixels)
    assert np.array_equal(preprocess(pixels, msgspec.structs.replace(PLAIN, color="BGR")), pixels[..., ::-1].transpose(2, 0, 1))
    assert preprocess(pixels, msgspec.structs.replace(PLAIN, color="BGR")).flags.c_contiguous


@pytest.mark.parametrize("how", [PLAIN, msgspec.structs.replace(PLAIN, layout="NHWC", color="BGR"), GREY])
def test_restore_undoes_preprocess(how: Preprocess) -> None:
    shape = (4, 6) if how.color == "L" else (4, 6, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    how = msgspec.structs.replace(how, mean=(0.4,) * how.channels, std=(0.2,) * how.channels, scale=1 / 255)
    assert np.array_equal(np.asarray(restore(preprocess(pixels, how), how)), pixels)


def test_a_path_a_picture_and_an_array_are_the_same(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    first = preprocess(pixels, PLAIN)
    for other in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels)):
        assert np.array_equal(preprocess(other, PLAIN), first)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_every_mode_that_files_have_is_understood(mode: str, tmp_path: Path) -> None:
    """White stays white and black black, whatever the mode; and nothing warns."""
    for value in (0, 255):
        picture = Image.new("RGB", (6, 4), (value,) * 3)
        picture = picture.convert("RGB").convert(mode)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.all(preprocess(picture, PLAIN) == value)
            assert np.all(preprocess(picture, GREY) == value)


def test_a_palette_with_transparency_gives_its_colors_without_a_warning(tmp_path: Path) -> None:
    picture = Image.new("P", (6, 4), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    picture.save(tmp_path / "a.png", transparency=b"\x80\x80")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert preprocess(tmp_path / "a.png", PLAIN)[:, 0, 0].tolist() == [10, 20, 30]


def test_sixteen_bits_are_scaled_down_and_not_cut_off(tmp_path: Path) -> None:
    ramp = (np.arange(24, dtype=np.uint32).reshape(4, 6) * 2800).astype(np.uint16)
    for name in ("a.png", "a.tiff"):
        Image.fromarray(ramp).save(tmp_path / name)
        assert np.array_equal(preprocess(tmp_path / name, GREY)[0], ramp >> 8), name


def test_bytes_in_a_uint16_array_are_no_black_picture() -> None:
    """Of values that all lie below 256 the upper byte, which is taken, is 0."""
    bytes_ = np.arange(24, dtype=np.uint16).reshape(4, 6)
    with pytest.raises(InputError, match=r"uint16 array from 0 to 23 is a black picture in 16 bits, or one in 8.*uint8"):
        preprocess(bytes_, GREY)
    assert preprocess(bytes_ * 257, GREY)[0].tolist() == bytes_.tolist()


def test_pixels_of_unknown_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 6), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(DataError, match=r"float\.tiff has pixels of mode F"):
        preprocess(tmp_path / "float.tiff", GREY)


def test_an_exif_orientation_is_left_alone_as_by_torchvision(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(preprocess(tmp_path / "a.png", PLAIN), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_orientation_is_followed_where_the_recipe_says_so(tmp_path: Path, orientation: int) -> None:
    """As Exif 2.3 defines it: where row 0 and column 0 of the stored pixels belong."""
    shown = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    turn = {
        1: shown, 2: shown[:, ::-1], 3: shown[::-1, ::-1], 4: shown[::-1], 5: shown.swapaxes(0, 1),
        6: shown.swapaxes(0, 1)[::-1], 7: shown.swapaxes(0, 1)[::-1, ::-1], 8: shown.swapaxes(0, 1)[:, ::-1],
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(turn[orientation])).save(tmp_path / "a.png", exif=exif)
    how = msgspec.structs.replace(PLAIN, exif=True)
    with Image.open(tmp_path / "a.png") as opened:
        for picture in (tmp_path / "a.png", opened, (tmp_path / "a.png").read_bytes()):
            assert np.array_equal(preprocess(picture, how), shown.transpose(2, 0, 1))


def test_only_image_formats_of_the_list_are_opened(tmp_path: Path) -> None:
    """An EPS named .png would start Ghostscript."""
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 6\n%%EndComments\n")
    with pytest.raises(DataError, match=r"a\.png cannot be read as an image"):
        preprocess(tmp_path / "a.png", PLAIN)
    Image.new("RGB", (6, 4)).save(tmp_path / "b.png", "TGA")
    with pytest.raises(DataError, match=r"b\.png cannot be read as an image"):
        preprocess(tmp_path / "b.png", PLAIN)


def test_bytes_that_are_no_picture_are_not_called_by_an_address() -> None:
    for read in (lambda data: preprocess(data, PLAIN), lambda data: preprocess(io.BytesIO(data), PLAIN), pixels_of):
        with pytest.raises(DataError, match="cannot be read as an image: it has none of the formats") as caught:
            read(b"no picture")
        assert "0x" not in str(caught.value) and "BytesIO" not in str(caught.value)


def test_a_pipe_or_a_device_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png", "."):
        with pytest.raises(DataError, match="not a regular file"):
            preprocess(tmp_path / name, PLAIN)


def test_a_missing_file_a_text_and_a_cut_photograph_name_the_file(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(stream, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(stream.getvalue()[:-400])
    (tmp_path / "text.jpg").write_text("this is no image")
    (tmp_path / "empty.jpg").touch()
    reasons = {"cut.jpg": "truncated", "text.jpg": "as an image", "empty.jpg": "as an image", "none.jpg": "does not exist"}
    for name, words in reasons.items():
        with pytest.raises(DataError, match=f"{name}.*{words}"):
            preprocess(tmp_path / name, PLAIN)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_damaged_file_is_an_image_or_a_data_error_and_nothing_else(kind: str, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)).save(stream, kind)
    good, path, refused = stream.getvalue(), tmp_path / "image", 0
    for seed in range(150):
        random = np.random.default_rng(seed)
        bad = bytearray(good[: random.integers(1, len(good))] if seed % 3 == 0 else good)
        for index in random.integers(0, len(bad), 4):
            bad[index] = random.integers(0, 256)
        path.write_bytes(bad)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                preprocess(path, PLAIN)
        except DataError:
            refused += 1
    assert 0 < refused <= 150


@pytest.mark.parametrize(
    "what",
    [
        *(np.zeros(shape, np.uint8) for shape in ((0, 6), (5, 6, 2), (4,), (5, 7, 8), (1, 3, 5, 7))),
        *(np.full((4, 6), value) for value in (1.5, -0.5, np.nan, np.inf, 256, -1, 1j)), np.zeros((4, 6), object),
        torch.zeros(3, 4, 6, requires_grad=True), torch.zeros(3, 4, 6, device="meta"), 7, None, [[0, 1]],
    ],
    ids=lambda what: f"{type(what).__name__} {getattr(what, 'dtype', '')} {getattr(what, 'shape', what)}",
)  # fmt: skip
def test_what_is_no_picture_is_an_input_error(what: object) -> None:
    with pytest.raises(InputError):
        preprocess(what, PLAIN)


def test_one_picture_or_many() -> None:
    grey, color = np.zeros((5, 7), np.uint8), np.zeros((5, 7, 3), np.uint8)
    picture = Image.new("L", (3, 3))
    for one in (grey, color, picture, "a.png", Path("a.png"), b"bytes", io.BytesIO()):
        assert [*pictures_of(one)] == [one] if not isinstance(one, np.ndarray) else next(pictures_of(one)) is one
        assert len([*pictures_of([one, one])]) == 2
    assert len([*pictures_of(path for path in ("a", "b", "c"))]) == 3
    for none in ([], 3, {"a": 1}, np.zeros((2, 2, 2, 2, 2), np.uint8), np.zeros(3, np.uint8), np.zeros((2, 5, 7, 8), np.uint8)):
        with pytest.raises(InputError):
            pictures_of(none)


@pytest.mark.parametrize("shape", [(5, 7, 2), (6, 5, 7, 2)])
def test_gray_with_transparency_is_not_as_many_pictures_two_pixels_wide(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"has two channels: gray with transparency.*array\[\.\.\., 0\]"):
        pictures_of(np.zeros(shape, np.uint8))


def test_a_long_list_is_drawn_from_as_it_is_worked_off() -> None:
    drawn = []
    many = pictures_of(drawn.append(i) or i for i in range(1000))
    assert next(many) == 0
    assert drawn == [0]


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((5, 7, 1), 1), ((5, 7, 3), 1), ((5, 7, 4), 1), ((3, 5, 7), 1), ((4, 5, 7), 1), ((1, 5, 7), 1), ((3, 16, 16), 1),
        ((6, 5, 7), 6), ((2, 5, 7, 3), 2), ((2, 5, 7, 1), 2), ((2, 3, 5, 7), 2), ((16, 16, 4), 1), ((2, 5, 7), 2),
    ],
)  # fmt: skip
def test_how_many_pictures_an_array_is(shape: tuple[int, ...], count: int) -> None:
    array = np.zeros(shape, np.uint8)
    assert len([*pictures_of(array)]) == count
    assert len([*pictures_of(torch.from_numpy(array))]) == count
    for picture in pictures_of(array):
        assert preprocess(picture, PLAIN).shape == (3, 4, 6)


def test_three_gray_pictures_or_one_of_three_channels_is_asked_about() -> None:
    with pytest.raises(InputError, match=r"\[3, 28, 28\] is one picture with its channels first, or 3 gray ones"):
        pictures_of(np.zeros((3, 28, 28), np.uint8), "L")
    assert len([*pictures_of(np.zeros((1, 28, 28), np.uint8), "L")]) == 1
    assert len([*pictures_of(torch.zeros(3, 28, 28), "L")]) == 1, "PyTorch has its channels first"


def test_every_form_of_one_picture_is_the_same() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    want = pixels.transpose(2, 0, 1).astype(np.float32)
    clear = np.concatenate([pixels, np.zeros((4, 6, 1), np.uint8)], axis=2)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    first = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    for name, form in {
        "channels first": first, "tensor": torch.from_numpy(first), "tensor from ToTensor": torch.from_numpy(first) / 255,
        "with transparency": clear, "transparency first": clear.transpose(2, 0, 1), "float": pixels / 255,
        "half": (pixels / 255).astype(np.float16), "16 bits": pixels.astype(np.uint16) * 257, "bytes": stream.getvalue(),
        "file": io.BytesIO(stream.getvalue()), "a view": pixels[::-1][::-1], "last of PyTorch": torch.from_numpy(pixels),
        "the other order of bytes": (pixels.astype(np.uint16) * 257).astype(">u2"),
    }.items():  # fmt: skip
        assert np.array_equal(preprocess(form, PLAIN), want), name
    gray = pixels[..., 0]
    for form in (gray, gray[..., None], gray[None], gray / 255, torch.from_numpy(gray[None]), gray > 127):
        assert np.array_equal(preprocess(form, GREY)[0], gray if form.dtype != bool else (gray > 127) * 255.0)
    with pytest.raises(InputError, match=r"from -2\.1 to 2\.6 .* call the runner itself"):
        preprocess(np.array([[-2.1, 2.6]]), GREY)
    with pytest.raises(InputError, match="floats from 0 to 1"):
        preprocess(pixels.astype(np.float32), PLAIN)


def test_tensors_of_types_that_numpy_has_not_are_pictures() -> None:
    even = torch.full((3, 4, 6), 0.5)
    assert preprocess(even.bfloat16(), PLAIN).flatten().tolist() == [128.0] * 72
    with pytest.raises(InputError, match=r"meta device type tensor to numpy.*to_dense"):
        preprocess(even.to("meta"), PLAIN)


def test_a_strip_cannot_take_all_memory() -> None:
    for shape in ((20_000, 1), (1, 20_000)):
        with pytest.raises(DataError, match="would become 256 x 5120000"):
            preprocess(np.zeros(shape, np.uint8), Preprocess(resize=256))
    assert preprocess(np.zeros((300, 3), np.uint8), Preprocess(resize=256)).shape == (3, 224, 224)


BGR = Preprocess(size=(30, 40), resize=48, color="BGR", mean=(1.0, 2.0, 3.0), std=(2.0, 3.0, 5.0), scale=0.7)
KINDS = [Preprocess(size=(30, 40), resize=48), BGR, msgspec.structs.replace(BGR, layout="NHWC"),
         Preprocess(size=(30, 40), color="L", mean=(0.3,), std=(0.7,))]  # fmt: skip


@pytest.mark.parametrize("how", KINDS)
def test_every_value_has_the_bits_of_the_formula_in_float32(how: Preprocess) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    cut = preprocess(pixels, msgspec.structs.replace(how, inside=True))
    values = cut.astype(np.float32)[..., ::-1] if how.color == "BGR" else cut.astype(np.float32)
    want = (values * np.float32(how.scale) - np.array(how.mean, np.float32)) / np.array(how.std, np.float32)
    found = preprocess(pixels, how)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, want if how.layout == "NHWC" else want.transpose(2, 0, 1))


@pytest.mark.parametrize("how", KINDS)
def test_inside_gives_the_cropped_picture_itself(how: Preprocess) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    inside = msgspec.structs.replace(how, inside=True)
    found = preprocess(pixels, inside)
    assert (found.dtype, found.shape) == (np.uint8, (30, 40, how.channels))
    picture = restore(preprocess(pixels, how), how)  # what outside preprocessing was made of, RGB or gray
    np.testing.assert_array_equal(np.asarray(picture).reshape(found.shape), found)


def test_a_draft_is_what_pillow_decodes_small_and_no_smaller_than_twice_the_size(tmp_path: Path) -> None:
    data = pytest.importorskip("sklearn.datasets")
    Image.fromarray(data.load_sample_image("china.jpg")).save(tmp_path / "x.jpg", quality=90)  # 640 x 427
    how = Preprocess(size=(48, 48), resize=50, draft=True)
    with Image.open(tmp_path / "x.jpg") as image:
        image.draft(None, (100, 100))
        assert image.size == (160, 107)  # a quarter: 100 at least is left of the shorter side
        small = image.copy()
    plain = msgspec.structs.replace(how, draft=False)
    found, full = preprocess(tmp_path / "x.jpg", how), preprocess(tmp_path / "x.jpg", plain)
    np.testing.assert_array_equal(found, preprocess(small, plain))
    assert 0 < np.abs(found - full).max() < 0.5  # other pixels, of the same picture
    large, plain_large = (msgspec.structs.replace(one, resize=220, size=(200, 200)) for one in (how, plain))
    np.testing.assert_array_equal(preprocess(tmp_path / "x.jpg", large), preprocess(tmp_path / "x.jpg", plain_large))
    Image.open(tmp_path / "x.jpg").save(tmp_path / "x.png")
    np.testing.assert_array_equal(preprocess(tmp_path / "x.png", how), preprocess(tmp_path / "x.png", plain))


def test_a_strip_counts_as_what_it_is_resized_to() -> None:
    stream = io.BytesIO()
    Image.new("L", (2000, 1)).save(stream, "PNG")
    assert pixels_of(stream.getvalue()) == 2000
    assert pixels_of(stream.getvalue(), 64) == 64 * 64 * 2000
    with pytest.raises(DataError, match="would become"):
        pixels_of(stream.getvalue(), 1024)


def test_a_jpeg_of_scans_without_end_is_refused_before_it_is_decoded() -> None:
    """The whole picture is gone over for each: some minutes for a file of a megabyte."""
    buffer = io.BytesIO()
    Image.new("L", (2000, 2000), 128).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    few, many = (data[:-2] + last * count + data[-2:] for count in (9, 30_000))
    assert preprocess(few, Preprocess(size=(8, 8))).shape == (3, 8, 8)
    with bounds(), pytest.raises(DataError, match=r"a JPEG of 30,0\d\d scans"):
        preprocess(many, Preprocess(size=(8, 8)))
