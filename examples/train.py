"""An ordinary training script, and the workload that was lifted out of it.

    python examples/train.py                                                      # trains, seconds
    epochcast probe examples/train.py:workload --batch-sizes 32,64 --set width=64,128   # predicts

The loop in ``main`` is untouched. What it builds first (model, data, optimizer) moved into small
functions, so that ``main`` and ``workload`` cannot drift apart.
"""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from epochcast import Workload

EPOCHS = 3
BATCH_SIZE = 64


class Rings(Dataset[tuple[Tensor, Tensor]]):
    """Points in the plane, labelled by the ring that they lie in: stands for your own data."""

    def __init__(self, samples: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.points = torch.randn(samples, 2, generator=generator)
        self.labels = self.points.norm(dim=1).mul(2).long().clamp(max=3)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.points[index], self.labels[index]


# Step 1: what main() built inline becomes functions, with the sizes as arguments.


def build_model(width: int, depth: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs in (2, *[width] * (depth - 1)):
        layers += [nn.Linear(inputs, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 4))


def build_data() -> tuple[Dataset[tuple[Tensor, Tensor]], Dataset[tuple[Tensor, Tensor]]]:
    return Rings(6_000, seed=0), Rings(1_000, seed=1)


def build_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=3e-3)


# Step 2: the workload puts the same pieces together and leaves the loop to epochcast.


def workload(width: int = 64, depth: int = 2) -> Workload:
    model = build_model(width, depth)
    train_data, eval_data = build_data()
    return Workload(
        model=model,
        train_data=train_data,
        eval_data=eval_data,
        optimizer=build_optimizer(model),
        loss=nn.functional.cross_entropy,
        batch_size=BATCH_SIZE,
    )


# Step 3: the training itself stays as it was. The guard below keeps epochcast, which imports this
# file, from starting it.


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(width=64, depth=2).to(device)
    train_data, eval_data = build_data()
    optimizer = build_optimizer(model)
    for epoch in range(EPOCHS):
        loss = train_epoch(model, DataLoader(train_data, BATCH_SIZE, shuffle=True), optimizer)
        accuracy = evaluate(model, DataLoader(eval_data, BATCH_SIZE))
        print(f"epoch {epoch + 1}: training loss {loss:.3f}, accuracy {accuracy:.1%}")


def train_epoch(
    model: nn.Module,
    loader: DataLoader[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
) -> float:
    device = next(model.parameters()).device
    model.train()
    total = 0.0
    for inputs, targets in loader:
        loss = nn.functional.cross_entropy(model(inputs.to(device)), targets.to(device))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        total += loss.item()
    return total / len(loader)


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader[tuple[Tensor, Tensor]]) -> float:
    device = next(model.parameters()).device
    model.eval()
    hits = seen = 0
    for inputs, targets in loader:
        hits += int((model(inputs.to(device)).argmax(dim=1) == targets.to(device)).sum())
        seen += len(targets)
    return hits / seen


if __name__ == "__main__":
    main()
