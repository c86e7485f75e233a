"""Polygraphy's command lines: each option becomes a key, or is named."""

from __future__ import annotations

import pytest

from toolkit.errors import RecipeError
from toolkit.migrate.polygraphy import is_polygraphy, read_polygraphy

CONVERT = (
    "polygraphy convert -o net.engine net.onnx --int8 --fp16 --calibration-cache calib.cache "
    "--calib-base-cls IInt8MinMaxCalibrator "
    "--trt-min-shapes 'X:[1,3,28,28]' --trt-opt-shapes 'X:[4,3,28,28]' 'mask:[4,1]' --trt-max-shapes 'X:[8,3,28,28]' "
    "--layer-precisions /head/fc:float32 conv1:float16 --precision-constraints obey --tensor-dtypes X:float16 "
    "--pool-limit workspace:2G tactic_dram:1G --builder-optimization-level 4 --save-timing-cache t.cache --sparse-weights"
)


def test_a_line_of_convert_becomes_keys() -> None:
    assert is_polygraphy(CONVERT) and not is_polygraphy("trtexec --onnx=polygraphy.onnx")
    found = read_polygraphy(CONVERT)
    assert (found.onnx, found.cache) == ("net.onnx", "calib.cache")
    assert found.precision == {"compute": "fp16", "int8": True} and found.calibration == {"method": "minmax"}
    assert found.build == {
        "target": "tensorrt", "batch": [1, 4, 8], "workspace_mib": 2048, "optimization_level": 4, "timing_cache": True,
    }  # fmt: skip
    assert found.layers == (("/head/fc", "fp32"), ("conv1", "fp16"))
    said = " | ".join(found.said)
    named = ("--precision-constraints obey: removed", "--tensor-dtypes X:float16", "tactic_dram:1G", "--sparse-weights: not")
    for text in named:
        assert text in said
    assert len(found.said) == len(named)


def test_a_line_of_run_with_several_profiles_and_old_spellings() -> None:
    each = [(kind, n) for group in ((1, 2, 4), (5, 6, 8)) for kind, n in zip(("min", "opt", "max"), group, strict=True)]
    shapes = [f"--trt-{kind}-shapes input_1:0,{n}x3x8x8" for kind, n in each]
    found = read_polygraphy(f"/usr/bin/polygraphy run m.onnx --trt --onnxrt --bf16 --workspace 1e9 --atol 0.5 {' '.join(shapes)}")
    assert found.build == {"target": "tensorrt", "batch": [[1, 2, 4], [5, 6, 8]], "workspace_mib": 954}
    assert found.precision == {"compute": "bf16"} and found.said == ()
    comma = read_polygraphy("polygraphy run m.onnx --trt --fp16 --layer-precisions Conv_0:float32,Conv_1:float32 float16")
    assert comma.layers == (("Conv_0", "fp32"), ("Conv_1", "fp32"), ("*", "fp16"))


@pytest.mark.parametrize("wrong", ["--trt-min-shapes X", "--trt-min-shapes 'X:[a,b]'", "--workspace lots", "--x 'open"])
def test_what_cannot_be_read_is_refused(wrong: str) -> None:
    with pytest.raises(RecipeError):
        read_polygraphy(f"polygraphy run m.onnx {wrong}")


def test_a_profile_without_a_largest_shape_is_refused() -> None:
    with pytest.raises(RecipeError, match="alike"):
        read_polygraphy("polygraphy run m.onnx --trt --trt-min-shapes 'X:[1,3,8,8]'")
