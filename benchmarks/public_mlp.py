"""The perceptrons of the public measurements in ``public/gpumemnet-mlp.csv``, to be counted.

Hidden layers halve (``pyramid``, ``bottleneck``), stay (``uniform``) or shrink evenly
(``gradual``); Adam, float32, cross entropy after a softmax, as measured.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import TensorDataset

import epochcast as ec

SAMPLES = 4096
ACTIVATIONS = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "mish": nn.Mish,
    "prelu": nn.PReLU,
    "relu": nn.ReLU,
    "selu": nn.SELU,
    "softplus": nn.Softplus,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
}


def workload(
    inputs: int,
    outputs: int,
    depth: int,
    shape: str,
    activation: str,
    dropout: bool,
    batch_norm: bool,
) -> ec.Workload:
    """A perceptron of ``depth`` hidden layers and one more in a bottleneck."""
    layers: list[nn.Module] = []
    width = inputs
    for units in hidden_widths(inputs, outputs, depth, shape):
        layers.append(nn.Linear(width, units))
        layers += [nn.BatchNorm1d(units)] if batch_norm else []
        layers.append(ACTIVATIONS[activation]())
        layers += [nn.Dropout(0.3)] if dropout else []
        width = units
    one = outputs == 1
    layers += [nn.Linear(width, outputs), nn.Sigmoid() if one else nn.Softmax(dim=1)]
    model = nn.Sequential(*layers)
    labels = torch.zeros(SAMPLES, 1) if one else torch.zeros(SAMPLES, dtype=torch.long)
    return ec.Workload(
        model=model,
        train_data=TensorDataset(torch.zeros(1, inputs).expand(SAMPLES, -1), labels),
        loss=nn.BCEWithLogitsLoss() if one else nn.CrossEntropyLoss(),
        optimizer=torch.optim.Adam(model.parameters()),
        batch_size=32,
        data_source="synthetic",
    )


def hidden_widths(inputs: int, outputs: int, depth: int, shape: str) -> list[int]:
    """Units of the hidden layers; none has fewer than there are outputs."""
    if shape == "uniform":
        return [inputs] * depth
    if shape == "gradual":
        step = (inputs - outputs) // depth
        return [max(inputs - step * (i + 1), outputs) for i in range(depth)]
    layers = depth + (shape == "bottleneck")
    return [max(inputs >> (i + 1), outputs) for i in range(layers)]
