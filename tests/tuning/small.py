"""How the recipes of these tests begin."""

SMALL = """
name = "small"
[reference]
arch = "resnet18"
weights = "packaged:fashion-resnet18"
[preprocess]
size = [28, 28]
mean = [0.286]
std = [0.353]
color = "L"
"""
