"""What an app embeds: the runner and what it stands on. numpy, Pillow and one backend are all it needs."""

from toolkit.runtime.runner import Prediction, Runner

__all__ = ["Prediction", "Runner"]
