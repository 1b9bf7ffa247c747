"""A plain loop that saves and leaves on SIGTERM or SIGUSR1, and goes on from its checkpoint."""

import argparse
import os
import signal
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

asked = False


def on_signal(number, frame):
    global asked
    asked = True


def save(path, state):
    torch.save(state, path + ".tmp")
    os.replace(path + ".tmp", path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--checkpoint", default="checkpoint.pt")
    parser.add_argument("--samples", type=int, default=8000)
    args = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, on_signal)

    torch.manual_seed(0)
    x = torch.randn(args.samples, 128)
    loader = DataLoader(TensorDataset(x, x.sum(dim=1)), args.batch_size, shuffle=True)
    model = nn.Sequential(nn.Linear(128, args.hidden), nn.ReLU(), nn.Linear(args.hidden, 1))
    optimizer = torch.optim.Adam(model.parameters())
    first = 0
    if os.path.exists(args.checkpoint):
        state = torch.load(args.checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"]

    def state_at(epoch):
        return {"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}

    for epoch in range(first, args.epochs):
        for inputs, targets in loader:
            loss = nn.functional.mse_loss(model(inputs).squeeze(-1), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if asked:
                save(args.checkpoint, state_at(epoch))
                print(f"asked to leave in epoch {epoch + 1}", flush=True)
                sys.exit(0)
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}", flush=True)
        save(args.checkpoint, state_at(epoch + 1))


if __name__ == "__main__":
    main()
