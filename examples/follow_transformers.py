"""A small vision transformer with random weights in Hugging Face's Trainer, as a plan says.

    epochcast probe examples/follow_transformers.py:digits_vit
    epochcast plan --epochs 50 --deadline 2m --stop patience=5 --output plan.json
    python examples/follow_transformers.py plan.json

Stop it with Ctrl-C and start it again: it goes on where it was, with what is left of the budget.
"""

import sys
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

import epochcast as ec
from epochcast.profiler.builtin import digits_mlp


class Digits(Dataset[dict[str, Any]]):
    """8×8 images and their digits, as the model's arguments are called."""

    def __init__(self, pairs: Any) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> dict[str, Any]:
        pixels, digit = self.pairs[i]
        return {"pixel_values": torch.as_tensor(pixels).reshape(1, 8, 8), "labels": digit}


def digits_vit(width: int = 32, depth: int = 2) -> ec.Workload:
    config = ViTConfig(  # of ten classes: as many as id2label names
        image_size=8,
        patch_size=2,
        num_channels=1,
        id2label={i: str(i) for i in range(10)},
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=depth,
        num_attention_heads=2,
    )
    model = ViTForImageClassification(config)
    digits = digits_mlp()
    return ec.Workload(
        model=model,
        train_data=Digits(digits.train_data),
        eval_data=Digits(digits.eval_data),
        optimizer=torch.optim.AdamW(model.parameters()),
        forward=lambda model, batch: model(**batch).loss,
    )


def main(path: str) -> None:
    plan = ec.Plan.load(path)
    config = plan.chosen.config
    torch.manual_seed(0)
    sizes: dict[str, Any] = dict(config.sizes)
    work = digits_vit(**sizes)
    follow = ec.integrations.transformers.FollowPlan(plan, folder="digits-transformers")
    arguments = TrainingArguments(
        output_dir="digits-transformers/trainer",
        num_train_epochs=plan.chosen.epochs,  # over which the learning rate falls
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulation,
        learning_rate=3e-3,
        eval_strategy="epoch",  # the plan says after which
        logging_strategy="epoch",
        save_strategy="no",  # the plan saves
        use_cpu=True,
        disable_tqdm=True,
        report_to=[],
    )
    trainer = Trainer(
        model=work.model,
        args=arguments,
        train_dataset=work.train_data,
        eval_dataset=work.eval_data,
        callbacks=[follow],
    )
    trainer.train(resume_from_checkpoint=follow.checkpoint)
    print(follow.summary())

    best = ViTForImageClassification.from_pretrained(follow.best_checkpoint or follow.checkpoint)
    trainer = Trainer(model=best, args=arguments, eval_dataset=work.eval_data)
    print(f"validation loss of the best model: {trainer.evaluate()['eval_loss']:.4f}")


if __name__ == "__main__":
    main(sys.argv[1])
