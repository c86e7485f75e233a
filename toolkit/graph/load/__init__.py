"""Bring your own ONNX: an image classifier that another tool exported -> the same kind of graph that `export` makes.

`loading.py` is the trip, one pass a file; `apart.py` makes it in a process of its own, with limits on memory and time.
"""

from toolkit.graph.load.loading import Facts, LoadedGraph, load

__all__ = ["Facts", "LoadedGraph", "load"]
