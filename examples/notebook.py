"""A page of Python: a module becomes engines, which are judged, measured and run. Usage: python notebook.py [FOLDER]"""

import sys

import torch
from torch import nn

import toolkit

# Any torch.nn.Module in eval mode, an ONNX file, or weights with arch="resnet50". This one is small, and not trained.
torch.manual_seed(0)
module = nn.Sequential(
    nn.Conv2d(1, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
).eval()  # fmt: skip

recipe = toolkit.Recipe.of(
    module,
    name="tiny-int8",
    int8=True,
    size=(28, 28),
    color="L",
    mean=[0.286],
    std=[0.353],
    calibration={"data": "packaged:fashion-train", "images": 64},  # or a folder of images
    accept={"data": "packaged:fashion-test", "images": 1000, "max_top1_drop": 2.0, "min_agreement": 0.8},  # a folder a class
)
engines = toolkit.build(recipe, out=sys.argv[1] if len(sys.argv) > 1 else "engines/built")
print(engines[0].judge())

results = toolkit.bench(engines, seconds=2)
print(toolkit.table(results))

with engines[0].runner() as runner:
    logits = runner(torch.zeros(2, 1, 28, 28).numpy())
print("logits", list(logits.shape))
