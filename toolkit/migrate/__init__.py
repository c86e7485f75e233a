"""The way over from TensorRT 10 and before: calibration caches and trtexec lines -> a recipe with the same scales."""
