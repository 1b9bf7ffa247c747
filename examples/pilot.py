"""A short pilot run that writes its learning curve for ``epochcast plan --curve``.

    python examples/pilot.py 20 pilot.csv
    epochcast plan digits-mlp --epochs 200 --deadline 30s --stop patience=5 --curve pilot.csv

Any training that logs its losses will do: CSV, JSON, or a TensorBoard event file.
"""

import csv
import sys
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import epochcast as ec
from epochcast.profiler.builtin import digits_mlp


def main(epochs: int, path: str) -> None:
    torch.manual_seed(0)
    work = digits_mlp()
    assert work.eval_data is not None
    training = DataLoader(work.train_data, batch_size=work.batch_size, shuffle=True)
    validation = DataLoader(work.eval_data, batch_size=256)
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("epoch", "train_loss", "val_loss"))
        for epoch in range(1, epochs + 1):
            work.model.train()
            losses = [step(work, batch) for batch in training]
            work.model.eval()
            with torch.no_grad():
                checks = [cross_entropy(work.model(x), y).item() for x, y in validation]
            mean = (sum(values) / len(values) for values in (losses, checks))
            rows.writerow((epoch, *(f"{value:.5f}" for value in mean)))


def step(work: ec.Workload, batch: Any) -> float:
    inputs, targets = batch
    (optimizer,) = work.optimizers
    loss = cross_entropy(work.model(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.item())


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
