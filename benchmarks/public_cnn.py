"""The network of the public measurements in ``public/a100-cifar-cnn.csv``, to be counted.

``depth`` blocks of two 3 × 3 convolutions and a pooling, the width doubling from block to block,
then two dense layers; Adam, float32, CIFAR-10. It was measured in Keras; the counts are those of
the same layers in torch.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import TensorDataset

import epochcast as ec

SAMPLES, SIDE, CLASSES, HIDDEN = 50_000, 32, 10, 128


def workload(depth: int = 2, width: int = 16) -> ec.Workload:
    """A network of ``depth`` blocks, the first of ``width`` filters."""
    layers: list[nn.Module] = []
    channels = 3
    for block in range(depth):
        filters = width * 2**block
        layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(filters, filters, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels = filters
    features = channels * (SIDE // 2**depth) ** 2
    head = (nn.Flatten(), nn.Linear(features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
    model = nn.Sequential(*layers, *head)
    images = torch.zeros(1, 3, SIDE, SIDE).expand(SAMPLES, -1, -1, -1)
    return ec.Workload(
        model=model,
        train_data=TensorDataset(images, torch.zeros(SAMPLES, dtype=torch.long)),
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.Adam(model.parameters()),
        batch_size=128,
        data_source="synthetic",
    )
