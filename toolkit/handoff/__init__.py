"""Handoff: an engine in the form that another program loads or runs: ONNX Runtime, Triton, Ray."""
