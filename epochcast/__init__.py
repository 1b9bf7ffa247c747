"""epochcast: what a PyTorch training run will cost, before it starts."""

__version__ = "0.1.0"
