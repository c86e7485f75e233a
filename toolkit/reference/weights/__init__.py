"""A recipe's `[reference]` -> the PyTorch ResNet with its weights, in eval mode.

files.py      a path -> what the file holds, read so that nothing in it runs
records.py    classes that a pickle names -> inert records; a whole pickled module -> its tensors
choice.py     nested dicts -> the one state dict, raw or averaged
layouts.py    tensor names of others -> torchvision's
labels.py     names of classes beside the tensors
shapes.py     tensors -> the network that has them
refusals.py   what gives another network away
load.py       all of it, in this order
"""

from toolkit.recipe.modules import digest
from toolkit.reference.weights.files import Content, read_content
from toolkit.reference.weights.load import LoadedWeights, load_reference, open_weights, randomize, read_weights
from toolkit.reference.weights.shapes import Weights

__all__ = [
    "Content", "LoadedWeights", "Weights", "digest", "load_reference", "open_weights", "randomize", "read_content",
    "read_weights",
]  # fmt: skip
