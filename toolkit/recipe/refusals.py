"""What is given in place of a recipe: a model, an engine. Refused by what it is, with the line that makes a recipe of it."""

from __future__ import annotations

from pathlib import Path

from toolkit.errors import RecipeError

MODELS = {
    ".onnx": "an ONNX file", ".pth": "a file of weights", ".pt": "a file of weights", ".bin": "a file of weights",
    ".ckpt": "a file of weights", ".tar": "a file of weights", ".safetensors": "a file of weights",
}  # fmt: skip


def refuse_model(path: Path) -> None:
    """Raise RecipeError where `path` is a model or an engine; whatever else it is, others say."""
    if (path / "manifest.json").is_file() or path.suffix == ".engine":
        what = f"{path} is an engine, not a recipe"
        raise RecipeError(what, remedy="Give the recipe it was built from; of a model, that lies beside the engine")
    kind = MODELS.get(path.suffix.lower()) if path.is_file() else None
    if kind is not None:
        line = f"toolkit init {path} --images FOLDER --precision int8 -o {path.stem}.toml"
        raise RecipeError(f"{path} is {kind}, not a recipe", remedy=f"Write one, and give {path.stem}.toml: {line}")
