"""An image classifier on a GPU: mixed precision, workers that load, a schedule, validation.

It validates and saves after every epoch, and saves and leaves on SIGTERM.
"""

import argparse
import os
import signal
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

asked = False


def on_signal(number, frame):
    global asked
    asked = True


class Images(Dataset):
    def __init__(self, samples, seed):
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randint(0, 256, (samples, 3, 32, 32), generator=generator).byte()
        self.labels = self.images.float().mean(dim=(1, 2, 3)).long() % 10

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = self.images[index].float() / 255
        if torch.rand(()) < 0.5:
            image = image.flip(-1)
        return image, self.labels[index]


def block(inside, outside):
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
        nn.Conv2d(outside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )


@torch.no_grad()
def validate(model, loader, criterion, device):
    model.eval()
    total = 0.0
    for images, labels in loader:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        with torch.autocast(device.type, dtype=torch.float16):
            total += criterion(model(images), labels).item()
    return total / len(loader)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--samples", type=int, default=20000)
    parser.add_argument("--workers", type=int, default=4)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, on_signal)

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loading = {"num_workers": args.workers, "pin_memory": device.type == "cuda"}
    train_loader = DataLoader(
        Images(args.samples, 0), args.batch_size, shuffle=True, drop_last=True, **loading
    )
    val_loader = DataLoader(Images(args.samples // 5, 1), 2 * args.batch_size, **loading)
    model = nn.Sequential(
        block(3, args.width),
        block(args.width, 2 * args.width),
        block(2 * args.width, 4 * args.width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * args.width, 10),
    ).to(device)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1e-2, total_steps=args.epochs * len(train_loader)
    )
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")

    def save(epoch):
        state = {"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state, "checkpoint.pt.tmp")
        os.replace("checkpoint.pt.tmp", "checkpoint.pt")

    for epoch in range(args.epochs):
        model.train()
        for step, (images, labels) in enumerate(train_loader):
            images = images.to(device, non_blocking=True)
            labels = labels.to(device, non_blocking=True)
            with torch.autocast(device.type, dtype=torch.float16):
                loss = criterion(model(images), labels)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            if step % 20 == 0:
                print(f"epoch {epoch + 1} step {step}: loss {loss.item():.4f}", flush=True)
            if asked:
                save(epoch)
                print(f"asked to leave in epoch {epoch + 1}", flush=True)
                sys.exit(0)
        print(f"epoch {epoch + 1}: val {validate(model, val_loader, criterion, device):.4f}")
        save(epoch + 1)
    if device.type == "cuda":
        peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        print(f"peak memory: {peaks[0]} allocated, {peaks[1]} reserved")


if __name__ == "__main__":
    main()
