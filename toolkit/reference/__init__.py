"""The PyTorch reference: the ResNet family, its weights and its training. Everything here needs the `export` extra.

OpenMP's threads, which torch computes with, shall sleep when they wait: where cores are shared, spinning costs the neighbors
several times the work. That is decided when torch is first imported, so it is done here.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
