"""Classification on many machines with Ray Data: `toolkit.ray.classify(source, engine, out)`.

The package has the name of the library that it drives; inside it, `import ray` is that library (extra `ray`).
"""

from __future__ import annotations

from toolkit.ray.job import Summary, classify

__all__ = ["Summary", "classify"]
