"""The network of train.py."""

from torch import nn


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())

    def forward(self, x):
        return x + self.layers(x)


class Network(nn.Module):
    def __init__(self, features, hidden, depth):
        super().__init__()
        blocks = [Residual(hidden) for _ in range(depth)]
        self.layers = nn.Sequential(nn.Linear(features, hidden), *blocks, nn.Linear(hidden, 1))

    def forward(self, x):
        return self.layers(x).squeeze(-1)
