"""Recipe: what is wanted, one TOML file an engine; its tables, how they are read and written."""

from toolkit.recipe.preprocess import Preprocess
from toolkit.recipe.recipe import ARCHITECTURES, Accept, Build, Calibration, Method, Precision, Recipe, Reference

__all__ = ["ARCHITECTURES", "Accept", "Build", "Calibration", "Method", "Precision", "Preprocess", "Recipe", "Reference"]
