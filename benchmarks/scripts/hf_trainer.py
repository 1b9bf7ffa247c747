"""A sequence classifier with transformers' Trainer: evaluates and saves after every epoch."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
)


@dataclass
class ModelArguments:
    hidden_size: int = field(default=64)
    num_hidden_layers: int = field(default=2)


@dataclass
class DataArguments:
    samples: int = field(default=2000)
    sequence_length: int = field(default=32)


class Sentences(Dataset):
    def __init__(self, samples, length, seed):
        rng = np.random.default_rng(seed)
        self.ids = torch.from_numpy(rng.integers(5, 1000, (samples, length)))
        self.labels = self.ids.float().mean(dim=1).gt(500).long()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return {
            "input_ids": self.ids[i],
            "attention_mask": torch.ones_like(self.ids[i]),
            "labels": self.labels[i],
        }


def compute_metrics(prediction):
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


@dataclass
class Arguments(TrainingArguments):
    output_dir: str = field(default="trainer_output")
    num_train_epochs: float = field(default=3)
    per_device_train_batch_size: int = field(default=16)
    per_device_eval_batch_size: int = field(default=32)
    eval_strategy: str = field(default="epoch")
    save_strategy: str = field(default="epoch")
    save_total_limit: int = field(default=2)
    logging_steps: float = field(default=50)
    use_cpu: bool = field(default=True)
    report_to: str = field(default="none")


def main():
    parser = HfArgumentParser((ModelArguments, DataArguments, Arguments))
    model_args, data_args, training_args = parser.parse_args_into_dataclasses()
    torch.manual_seed(training_args.seed)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=1000,
            hidden_size=model_args.hidden_size,
            num_hidden_layers=model_args.num_hidden_layers,
            num_attention_heads=2,
            intermediate_size=4 * model_args.hidden_size,
        )
    )
    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=Sentences(data_args.samples, data_args.sequence_length, 0),
        eval_dataset=Sentences(data_args.samples // 5, data_args.sequence_length, 1),
        compute_metrics=compute_metrics,
    )
    trainer.train()
    print(trainer.evaluate())
    trainer.save_model("final")


if __name__ == "__main__":
    main()
