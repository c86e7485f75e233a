"""An engine with its preprocessing inside: uint8 tensors and pictures are answered as the runner answers them."""

from __future__ import annotations

import io

import msgspec
import numpy as np
import tritonclient.http as triton
from PIL import Image

import toolkit
from tests.serve.conftest import QUICK, RECIPES
from tests.serve.serving import Server
from toolkit.recipe import Recipe


def test_pixels_go_in_as_they_are(tmp_path):
    recipe = Recipe.load(RECIPES / "fashion-resnet18-fp32.toml")
    recipe = msgspec.structs.replace(recipe, name="pixels", preprocess=msgspec.structs.replace(recipe.preprocess, inside=True))
    toolkit.build(recipe, out=tmp_path, proof=False)
    pixels = np.random.default_rng(2).integers(0, 256, (5, 28, 28, 1), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels[0, ..., 0]).resize((60, 50)).save(file, "PNG")
    with toolkit.load(tmp_path / "pixels", threads=1) as runner:
        logits, [best] = runner(pixels), runner.classify(file.getvalue())
    with Server(tmp_path / "pixels", *QUICK) as server, triton.InferenceServerClient(server.address) as client:
        [spec] = client.get_model_metadata("pixels")["inputs"]
        assert (spec["datatype"], spec["shape"]) == ("UINT8", [-1, 28, 28, 1])
        for binary in (True, False):
            given = triton.InferInput(spec["name"], list(pixels.shape), "UINT8")
            given.set_data_from_numpy(pixels, binary_data=binary)
            np.testing.assert_array_equal(client.infer("pixels", [given]).as_numpy("logits"), logits)
        reply = server.ask("POST", "/classify", file.getvalue())
        assert reply.json["predictions"] == [p._asdict() for p in best]
        out_of_range = {"name": spec["name"], "shape": [1, 28, 28, 1], "datatype": "UINT8", "data": [256] * 784}
        reply = server.ask("POST", "/v2/models/pixels/infer", msgspec.json.encode({"inputs": [out_of_range]}))
        assert (reply.status, "outside 0 to 255" in reply.error) == (400, True)
