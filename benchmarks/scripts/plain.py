"""An image classifier in a plain loop: validates every epoch, keeps the best and the last state."""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def make_data(samples, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(samples, 1, 28, 28, generator=generator)
    return TensorDataset(images, (images.mean(dim=(1, 2, 3)) * 280).long() % 10)


def train(model, loader, optimizer, criterion):
    model.train()
    total = 0.0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(loader)


@torch.no_grad()
def validate(model, loader, criterion):
    model.eval()
    loss, correct = 0.0, 0
    for images, labels in loader:
        outputs = model(images)
        loss += criterion(outputs, labels).item()
        correct += (outputs.argmax(dim=1) == labels).sum().item()
    return loss / len(loader), correct / len(loader.dataset)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--samples", type=int, default=20000)
    args = parser.parse_args()

    torch.manual_seed(0)
    train_loader = DataLoader(make_data(args.samples, 0), batch_size=args.batch_size, shuffle=True)
    val_loader = DataLoader(make_data(args.samples // 5, 1), batch_size=256)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, args.hidden),
        nn.ReLU(),
        nn.Linear(args.hidden, args.hidden),
        nn.ReLU(),
        nn.Linear(args.hidden, 10),
    )
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)

    best = float("inf")
    for epoch in range(args.epochs):
        train_loss = train(model, train_loader, optimizer, criterion)
        val_loss, accuracy = validate(model, val_loader, criterion)
        print(f"epoch {epoch + 1}: train {train_loss:.4f} val {val_loss:.4f} acc {accuracy:.3f}")
        state = {
            "epoch": epoch,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        torch.save(state, "last.pt")
        if val_loss < best:
            best = val_loss
            torch.save(model.state_dict(), "best.pt")


if __name__ == "__main__":
    main()
