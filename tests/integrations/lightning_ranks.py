"""Two processes of Lightning, DDP on the CPU: one is told to leave, both do, and go on later."""

import os
import signal
import sys
from pathlib import Path

import lightning
import torch
from guard.rehearsal import make_plan
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from epochcast.integrations.lightning import FollowPlan


class Model(lightning.LightningModule):
    def __init__(self, signalled_at: int | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.signalled_at = signalled_at

    def training_step(self, batch, index):
        if index == self.signalled_at and self.global_rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters())


def fit(folder: Path, model: Model) -> FollowPlan:
    follow = FollowPlan(make_plan(epochs=2, steps=5), folder=folder, watchers=[], store=False)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=1000,
        callbacks=[follow],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = DataLoader(TensorDataset(torch.randn(40, 4)), batch_size=4)
    trainer.fit(model, data, ckpt_path=follow.checkpoint)
    return follow


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    try:
        fit(folder / "run", Model(signalled_at=2))
    except SystemExit as error:
        code = error.code
    follow = fit(folder / "run", Model())
    position = follow.position
    text = f"{code} {follow.reason.name} {position.epoch} {position.steps}"
    (folder / f"rank-{os.environ['RANK']}").write_text(text)
    torch.distributed.destroy_process_group()  # gloo's threads may abort a process that leaves it
