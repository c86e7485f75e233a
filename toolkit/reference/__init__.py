"""The PyTorch reference: the ResNet family, its weights and its training. Everything here needs the `export` extra."""
