"""digits-mlp in Lightning, as long as a plan says.

    epochcast probe digits-mlp
    epochcast plan --epochs 100 --deadline 2m --stop patience=5 --output plan.json
    python examples/follow_lightning.py plan.json

Stop it with Ctrl-C and start it again: it goes on where it was, with what is left of the budget.
"""

import sys
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import epochcast as ec
from epochcast.profiler.builtin import digits_mlp


class Digits(lightning.LightningModule):
    def __init__(self, work: ec.Workload) -> None:
        super().__init__()
        self.model = work.model

    def training_step(self, batch: Any, index: int) -> Tensor:
        loss = cross_entropy(self.model(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", cross_entropy(self.model(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters())


def main(path: str) -> None:
    plan = ec.Plan.load(path)
    config = plan.chosen.config
    lightning.seed_everything(0)
    sizes: dict[str, Any] = dict(config.sizes)
    work = digits_mlp(**sizes)
    assert work.eval_data is not None
    training = DataLoader(work.train_data, batch_size=config.batch_size, shuffle=True)
    validation = DataLoader(work.eval_data, batch_size=256)

    follow = ec.integrations.lightning.FollowPlan(plan, folder="digits-lightning")
    trainer = lightning.Trainer(
        max_epochs=-1,  # the plan knows
        accelerator="cpu",
        accumulate_grad_batches=config.accumulation,
        callbacks=[follow],
        logger=False,
        enable_progress_bar=False,
    )
    trainer.fit(Digits(work), training, validation, ckpt_path=follow.checkpoint)
    print(follow.summary())
    trainer.validate(dataloaders=validation, ckpt_path="best")


if __name__ == "__main__":
    main(sys.argv[1])
