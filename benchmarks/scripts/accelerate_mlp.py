"""A regression with Hugging Face Accelerate: its loaders, its accumulation, its saved state."""

import argparse

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--per_device_train_batch_size", type=int, default=32)
    parser.add_argument("--hidden_size", type=int, default=256)
    parser.add_argument("--num_train_epochs", type=int, default=4)
    parser.add_argument("--gradient_accumulation_steps", type=int, default=2)
    parser.add_argument("--samples", type=int, default=12000)
    args = parser.parse_args()

    accelerator = Accelerator(
        cpu=True, gradient_accumulation_steps=args.gradient_accumulation_steps
    )
    set_seed(0)
    x = torch.randn(args.samples, 128)
    y = x.sum(dim=1, keepdim=True)
    held_out = args.samples // 6
    train_set = TensorDataset(x[held_out:], y[held_out:])
    train_loader = DataLoader(train_set, args.per_device_train_batch_size, shuffle=True)
    eval_loader = DataLoader(TensorDataset(x[:held_out], y[:held_out]), 128)
    model = nn.Sequential(
        nn.Linear(128, args.hidden_size),
        nn.ReLU(),
        nn.Linear(args.hidden_size, args.hidden_size),
        nn.ReLU(),
        nn.Linear(args.hidden_size, 1),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    updates = args.num_train_epochs * len(train_loader) // args.gradient_accumulation_steps
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, updates)
    model, optimizer, train_loader, eval_loader, scheduler = accelerator.prepare(
        model, optimizer, train_loader, eval_loader, scheduler
    )
    for epoch in range(args.num_train_epochs):
        model.train()
        for inputs, targets in train_loader:
            with accelerator.accumulate(model):
                loss = nn.functional.mse_loss(model(inputs), targets)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
        model.eval()
        losses = []
        for inputs, targets in eval_loader:
            with torch.no_grad():
                loss = nn.functional.mse_loss(model(inputs), targets)
            losses.append(accelerator.gather_for_metrics(loss))
        accelerator.print(f"epoch {epoch}: eval_loss {torch.stack(losses).mean().item():.4f}")
        accelerator.save_state(f"epoch_{epoch}")


if __name__ == "__main__":
    main()
