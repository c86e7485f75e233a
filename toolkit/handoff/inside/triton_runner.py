"""An engine of resnet-deploy in Triton's Python backend: batches in, the engine's answers out.

Triton's Python needs `pip install resnet-deploy` and the library that runs the engine (`[cpu]`, `[openvino]`, `[rtx]`, `[gpu]`).
"""

import json
import os

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        if args["model_instance_kind"] == "GPU":  # the runner takes the first GPU that it sees
            seen = [part for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part]
            index = int(args["model_instance_device_id"])
            os.environ["CUDA_VISIBLE_DEVICES"] = seen[index] if seen else str(index)
        import toolkit

        config = json.loads(args["model_config"])
        self.input, self.output = config["input"][0]["name"], config["output"][0]["name"]
        file = config["parameters"]["engine"]["string_value"]
        self.runner = toolkit.load(os.path.join(args["model_repository"], args["model_version"], file))

    def execute(self, requests):
        batches = [pb_utils.get_input_tensor_by_name(request, self.input).as_numpy() for request in requests]
        try:
            answers = self.runner(batches[0] if len(batches) == 1 else np.concatenate(batches))
        except Exception:  # whoever is at fault gets the error, and nobody else
            return [self.alone(batch) for batch in batches]
        ends = np.cumsum([len(batch) for batch in batches])
        return [self.response(answers[end - len(batch) : end]) for batch, end in zip(batches, ends, strict=True)]

    def alone(self, batch):
        try:
            return self.response(self.runner(batch))
        except Exception as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))

    def response(self, answers):
        return pb_utils.InferenceResponse([pb_utils.Tensor(self.output, answers)])

    def finalize(self):
        self.runner.close()
