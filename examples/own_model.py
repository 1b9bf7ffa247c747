"""The least that epochcast needs to know of your own model.

    epochcast probe examples/own_model.py:workload --batch-sizes 8,16,32 --set width=128,256

The function's keyword arguments are the knobs of ``--set``; their defaults are what you train now.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.utils.data import TensorDataset

from epochcast import Workload


def workload(width: int = 128, depth: int = 2) -> Workload:
    sizes = [3 * 32 * 32, *[width] * depth]
    hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    model = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, 10))
    data = TensorDataset(torch.rand(5_000, 3, 32, 32), torch.randint(0, 10, (5_000,)))
    return Workload(
        model=model,
        train_data=data,  # your own Dataset goes here
        optimizer=torch.optim.Adam(model.parameters(), lr=1e-3),
        loss=nn.functional.cross_entropy,
        batch_size=32,
    )
