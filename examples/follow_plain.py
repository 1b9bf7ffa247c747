"""digits-mlp in a loop of its own, as long as a plan says.

    epochcast probe digits-mlp
    epochcast plan --epochs 100 --deadline 2m --patience 5 --output plan.json
    python examples/follow_plain.py plan.json

Stop it with Ctrl-C and start it again: it goes on where it was, with what is left of the budget.
"""

import sys

import torch
from torch.utils.data import DataLoader

import epochcast as ec
from epochcast.profiler.builtin.workloads import digits_mlp


def main(path: str) -> None:
    plan = ec.Plan.load(path)
    config = plan.chosen.config
    torch.manual_seed(0)
    work = digits_mlp(**dict(config.sizes))
    training = DataLoader(work.train_data, batch_size=config.batch_size, shuffle=True)
    validation = DataLoader(work.eval_data, batch_size=256)

    state = {"model": work.model, "optimizer": work.optimizer}
    with ec.follow(plan, state=state, folder="digits-plain") as run:
        for _ in run.epochs():
            work.model.train()
            for inputs, targets in run.batches(training):
                loss = work.loss(work.model(inputs), targets)
                work.optimizer.zero_grad()
                loss.backward()
                work.optimizer.step()
            if run.due("evaluate"):
                run.report(train_loss=loss.item(), val_loss=evaluate(work, validation))
    print(run.summary())

    if run.best_checkpoint is not None:
        saved = torch.load(run.best_checkpoint, weights_only=True)
        work.model.load_state_dict(saved["objects"]["model"])
    print(f"validation loss of the best model: {evaluate(work, validation):.4f}")


@torch.no_grad()
def evaluate(work: ec.Workload, loader: DataLoader) -> float:
    work.model.eval()
    losses = [work.loss(work.model(inputs), targets) * len(targets) for inputs, targets in loader]
    return float(sum(losses)) / len(work.eval_data)


if __name__ == "__main__":
    main(sys.argv[1])
