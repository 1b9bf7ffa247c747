"""Two processes under torchrun: ``torchrun --standalone --nproc-per-node 2 ddp.py``."""

import argparse
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


class Trainer:
    def __init__(self, model, train_data, val_data, optimizer, rank):
        self.rank, self.optimizer = rank, optimizer
        self.model = DDP(model)
        self.train_data, self.val_data = train_data, val_data

    def run_epoch(self, epoch):
        self.model.train()
        self.train_data.sampler.set_epoch(epoch)
        for source, targets in self.train_data:
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(source), targets)
            loss.backward()
            self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def validate(self):
        self.model.eval()
        sums = torch.zeros(2)
        for source, targets in self.val_data:
            sums[0] += (self.model.module(source).argmax(dim=1) == targets).sum()
            sums[1] += len(targets)
        dist.all_reduce(sums)
        return (sums[0] / sums[1]).item()

    def train(self, epochs):
        for epoch in range(epochs):
            loss = self.run_epoch(epoch)
            accuracy = self.validate()
            if self.rank == 0:
                print(f"Epoch {epoch} | Loss {loss:.4f} | Accuracy {accuracy:.3f}", flush=True)
                torch.save(self.model.module.state_dict(), "checkpoint.pt")
            dist.barrier()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, default=32, help="of each process")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--samples", type=int, default=12000)
    args = parser.parse_args()

    dist.init_process_group("gloo")
    rank = int(os.environ["RANK"])
    torch.manual_seed(0)
    inputs = torch.randn(args.samples, 256)
    data = TensorDataset(inputs, (inputs.sum(dim=1) > 0).long())
    held_out = TensorDataset(inputs[: args.samples // 6], data.tensors[1][: args.samples // 6])
    model = nn.Sequential(
        nn.Linear(256, args.hidden),
        nn.ReLU(),
        nn.Linear(args.hidden, args.hidden),
        nn.ReLU(),
        nn.Linear(args.hidden, 2),
    )
    trainer = Trainer(
        model,
        DataLoader(data, args.batch_size, sampler=DistributedSampler(data)),
        DataLoader(held_out, args.batch_size, sampler=DistributedSampler(held_out, shuffle=False)),
        torch.optim.SGD(model.parameters(), lr=0.01),
        rank,
    )
    trainer.train(args.epochs)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
