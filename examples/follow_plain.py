"""digits-mlp in a loop of its own, as long as a plan says.

    epochcast probe digits-mlp
    epochcast plan --epochs 100 --deadline 2m --stop patience=5 --output plan.json
    python examples/follow_plain.py plan.json

Stop it with Ctrl-C and start it again: it goes on where it was, with what is left of the budget.
"""

import sys
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import epochcast as ec
from epochcast.profiler.builtin import digits_mlp


def main(path: str) -> None:
    plan = ec.Plan.load(path)
    config = plan.chosen.config
    torch.manual_seed(0)
    sizes: dict[str, Any] = dict(config.sizes)
    work = digits_mlp(**sizes)
    assert work.eval_data is not None
    training = DataLoader(work.train_data, batch_size=config.batch_size, shuffle=True)
    validation = DataLoader(work.eval_data, batch_size=256)

    (optimizer,) = work.optimizers
    state = {"model": work.model, "optimizer": optimizer}
    with ec.follow(plan, state=state, folder="digits-plain") as run:
        for _ in run.epochs():
            work.model.train()
            for inputs, targets in run.batches(training):
                loss = cross_entropy(work.model(inputs), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if run.due("evaluate"):
                run.report(train_loss=loss.item(), val_loss=evaluate(work, validation))
    print(run.summary())

    if run.best_checkpoint is not None:
        saved = torch.load(run.best_checkpoint, weights_only=True)
        work.model.load_state_dict(saved["objects"]["model"])
    print(f"validation loss of the best model: {evaluate(work, validation):.4f}")


@torch.no_grad()
def evaluate(work: ec.Workload, loader: DataLoader[Any]) -> float:
    work.model.eval()
    total = samples = 0.0
    for inputs, targets in loader:
        total += float(cross_entropy(work.model(inputs), targets, reduction="sum"))
        samples += len(targets)
    return total / samples


if __name__ == "__main__":
    main(sys.argv[1])
