"""What ``torchrun`` starts for test_distributed.py: Trainer, one run after the other.

torchrun --nproc-per-node 2 two_trainers.py FOLDER
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import transformers
from two_processes import BATCH, SAMPLES, Clock, interrupt

import epochcast as ec


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(3, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)
        )

    def forward(self, x, labels=None):
        out = self.layers(x)
        return {"loss": ((out - labels) ** 2).mean(), "logits": out}


class EachStep(transformers.TrainerCallback):
    def __init__(self, clock, seconds, each_step) -> None:
        self.clock, self.seconds, self.each_step, self.trained = clock, seconds, each_step, 0

    def on_step_end(self, args, state, control, **parts):
        self.clock.now += self.seconds
        self.trained += 1
        self.each_step(self.trained)


def train(folder, name, plan, run_folder, clock, seconds, each_step=lambda steps: None) -> None:
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "output"),
        num_train_epochs=3 if plan == "short" else 9,
        per_device_train_batch_size=BATCH,
        eval_strategy="epoch",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        learning_rate=0.01,
        dataloader_pin_memory=False,
        logging_strategy="no",
    )
    follow = ec.integrations.transformers.FollowPlan(
        folder / f"{plan}.json", folder=folder / run_folder, clock=clock, watchers=[], store=False
    )
    torch.manual_seed(0)
    x = torch.arange(3.0 * SAMPLES).reshape(SAMPLES, 3) / 100
    data = [{"x": row, "labels": row.sum(0, keepdim=True)} for row in x]
    steps, code = EachStep(clock, seconds, each_step), None
    trainer = transformers.Trainer(
        model=Net(),
        args=arguments,
        train_dataset=data,
        eval_dataset=data[:8],
        callbacks=[steps, follow],
    )
    try:
        trainer.train(resume_from_checkpoint=follow.checkpoint)
    except SystemExit as left:
        code = left.code
    done = {
        "trained": steps.trained,
        "steps": trainer.state.global_step,
        "code": code,
        "reason": follow.reason.value if follow.reason else None,
        "spent": clock.now,
        "weights": [float(w.double().abs().sum()) for w in trainer.model.parameters()],
    }
    (folder / f"{name}-{dist.get_rank()}.json").write_text(json.dumps(done))


def main(folder: Path) -> None:
    transformers.logging.set_verbosity_error()
    dist.init_process_group("gloo")
    clock, seconds = Clock(), 5.0 if dist.get_rank() == 0 else 7.0
    train(folder, "trainer", "trainer", "run", clock, seconds)
    train(folder, "trainer_richer", "trainer_richer", "run", clock, seconds)
    train(folder, "trainer_whole", "short", "whole", Clock(), 0.1)
    train(folder, "trainer_signal", "short", "parts", Clock(), 0.1, interrupt(1, 14))
    train(folder, "trainer_resumed", "short", "parts", Clock(), 0.1)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
