"""Preprocessing of resnet-deploy in Triton's Python backend: encoded pictures in (JPEG, PNG ...), an engine's input out.

Triton's Python needs `pip install resnet-deploy`: no torch, no onnx.
"""

import json
import os

import numpy as np
import triton_python_backend_utils as pb_utils

import toolkit
from toolkit.images.picture import preprocess


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.input, self.output = config["input"][0]["name"], config["output"][0]["name"]
        self.how = toolkit.Manifest.read(os.path.join(args["model_repository"], args["model_version"])).preprocess
        self.dtype = pb_utils.triton_string_to_numpy(config["output"][0]["data_type"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        pictures = pb_utils.get_input_tensor_by_name(request, self.input).as_numpy().reshape(-1)
        try:
            images = [preprocess(bytes(picture), self.how) for picture in pictures]
        except toolkit.ToolkitError as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        batch = np.stack(images).astype(self.dtype, copy=False)
        return pb_utils.InferenceResponse([pb_utils.Tensor(self.output, batch)])
