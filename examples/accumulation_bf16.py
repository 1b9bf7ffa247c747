"""Fine-tuning with a frozen part, bf16, gradient accumulation and padded dict batches.

    epochcast probe examples/accumulation_bf16.py:workload --batch-sizes 8,16 --set layers=2,4

Batches are dicts, so ``forward=`` says how the loss comes from one. The loop divides the loss by
``accumulation`` and updates after that many batches; frozen parameters are left out.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from epochcast import Workload

VOCABULARY = 8_000
LONGEST = 64  # tokens
PADDING = 0


class Sentences(Dataset[tuple[Tensor, int]]):
    """Random sentences of 16 to 64 tokens with two classes; item i is the same every time."""

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        generator = torch.Generator().manual_seed(index)
        length = int(torch.randint(16, LONGEST + 1, (), generator=generator))
        return torch.randint(1, VOCABULARY, (length,), generator=generator), index % 2


def pad(samples: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
    """Every sentence as long as the longest of its batch: shapes differ from batch to batch."""
    tokens = pad_sequence([t for t, _ in samples], batch_first=True, padding_value=PADDING)
    labels = torch.tensor([label for _, label in samples])
    return {"tokens": tokens, "padded": tokens == PADDING, "labels": labels}


class Classifier(nn.Module):
    """A transformer encoder whose embedding stands for a pretrained, frozen one."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width, padding_idx=PADDING)
        self.embedding.requires_grad_(False)
        block = nn.TransformerEncoderLayer(
            width, nhead=4, dim_feedforward=4 * width, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 2)

    def forward(self, tokens: Tensor, padded: Tensor) -> Tensor:
        features = self.encoder(self.embedding(tokens), src_key_padding_mask=padded)
        logits: Tensor = self.head(features[:, 0])
        return logits


def forward(model: nn.Module, batch: dict[str, Any]) -> Tensor:
    logits = model(batch["tokens"], batch["padded"])
    return nn.functional.cross_entropy(logits, batch["labels"])


def workload(width: int = 64, layers: int = 2) -> Workload:
    model = Classifier(width, layers)
    trainable = [p for p in model.parameters() if p.requires_grad]
    return Workload(
        model=model,
        train_data=Sentences(),
        optimizer=torch.optim.AdamW(trainable, lr=1e-4),
        forward=forward,
        collate=pad,
        batch_size=16,
        accumulation=4,
        precision="bf16",
    )
