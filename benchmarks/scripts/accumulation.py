"""A convolutional network: gradients accumulated and clipped, a schedule stepped at each update."""

import argparse
import csv
import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Shapes(Dataset):
    """Images made when they are asked for, with flips as augmentation."""

    def __init__(self, samples, train):
        self.samples, self.train = samples, train

    def __len__(self):
        return self.samples

    def __getitem__(self, i):
        image = np.random.default_rng(i).standard_normal((3, 16, 16), dtype=np.float32)
        if self.train and random.random() < 0.5:
            image = image[:, :, ::-1].copy()
        return torch.from_numpy(image), i % 10


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-b", "--batch-size", type=int, default=16)
    parser.add_argument("--accumulation-steps", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=32, help="channels")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--samples", type=int, default=4096)
    args = parser.parse_args()

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    train_set, test_set = Shapes(args.samples, True), Shapes(args.samples // 4, False)
    train_loader = DataLoader(
        train_set,
        args.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=args.workers,
    )
    test_loader = DataLoader(test_set, 2 * args.batch_size, num_workers=args.workers)
    width = args.hidden
    model = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, 10),
    )
    updates = args.epochs * (len(train_loader) // args.accumulation_steps)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9, nesterov=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)

    with open("history.csv", "w", newline="") as history:
        writer = csv.writer(history)
        writer.writerow(["epoch", "train_loss", "test_loss", "lr"])
        for epoch in range(args.epochs):
            model.train()
            running = 0.0
            optimizer.zero_grad()
            for i, (x, y) in enumerate(train_loader):
                loss = nn.functional.cross_entropy(model(x), y)
                (loss / args.accumulation_steps).backward()
                running += loss.item()
                if (i + 1) % args.accumulation_steps == 0:
                    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
            model.eval()
            test_loss = 0.0
            with torch.inference_mode():
                for x, y in test_loader:
                    test_loss += nn.functional.cross_entropy(model(x), y).item()
            row = [epoch, running / len(train_loader), test_loss / len(test_loader)]
            print("epoch {} train {:.4f} test {:.4f}".format(*row))
            writer.writerow([*row, scheduler.get_last_lr()[0]])
            history.flush()
            torch.save(
                {"model": model, "scheduler": scheduler.state_dict()}, f"checkpoint-{epoch}.pth"
            )


if __name__ == "__main__":
    main()
