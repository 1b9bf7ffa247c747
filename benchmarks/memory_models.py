"""The models whose peaks were measured on a T4, as workloads: from their configurations alone.

GPT-2, DistilBERT and BERT as transformers builds them; ResNet-50 as torchvision does (He et al.
2015, arXiv:1512.03385, table 1; the stride is in the 3×3 convolution). Trained as in the
measurements: autocast in bfloat16, AdamW, the mean of squares as the loss where there is no other.
A step there is a function, whose outputs live until it returns: they are kept here as long.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import epochcast as ec

VOCABULARY = {"gpt2": 50257, "distilbert-base-uncased": 30522, "bert-base-uncased": 30522}
CLASSES = 1000
STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))  # blocks, and channels inside one
EXPANSION = 4


class Same(Dataset[Tensor]):
    """One sample, again and again."""

    def __init__(self, sample: Tensor) -> None:
        self.sample = sample

    def __len__(self) -> int:
        return 4096

    def __getitem__(self, index: int) -> Tensor:
        return self.sample


def gpt2(size: int = 128) -> ec.Workload:
    """A causal language model of 124 million parameters, on ``size`` tokens."""
    from transformers import AutoModelForCausalLM, GPT2Config

    model = AutoModelForCausalLM.from_config(GPT2Config())
    return _workload(model, _tokens(size), _labelled)


def distilbert(size: int = 128) -> ec.Workload:
    """An encoder of 66 million parameters, on ``size`` tokens."""
    from transformers import AutoModel, DistilBertConfig

    return _workload(AutoModel.from_config(DistilBertConfig()), _tokens(size), _squares)


def bert(size: int = 128) -> ec.Workload:
    """An encoder of 109 million parameters, on ``size`` tokens."""
    from transformers import AutoModel, BertConfig

    return _workload(AutoModel.from_config(BertConfig()), _tokens(size), _squares)


def resnet50(size: int = 224) -> ec.Workload:
    """A residual network of 26 million parameters, on images of ``size`` pixels."""
    return _workload(ResNet50(), torch.zeros(3, size, size), _squared_logits)


def _tokens(size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.int64)


def _workload(model: nn.Module, sample: Tensor, forward: Any) -> ec.Workload:
    return ec.Workload(
        model=model,
        train_data=Same(sample),
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-5),
        forward=forward,
        precision="bf16",
    )


_outputs: list[Any] = []  # of the last step


def _kept(model: nn.Module, *inputs: Tensor, **named: Tensor) -> Any:
    """What the model returns, alive until it is called again."""
    _outputs.clear()
    _outputs.append(model(*inputs, **named))
    return _outputs[0]


def _labelled(model: nn.Module, ids: Tensor) -> Tensor:
    loss: Tensor = _kept(model, input_ids=ids, labels=ids).loss
    return loss


def _squares(model: nn.Module, ids: Tensor) -> Tensor:
    hidden: Tensor = _kept(model, input_ids=ids).last_hidden_state
    return hidden.float().pow(2).mean()


def _squared_logits(model: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = _kept(model, images)
    return logits.float().pow(2).mean()


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1, and a projection where the shape changes."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * inner
        self.layers = nn.Sequential(
            *_normalised(inputs, inner, 1, 1),
            nn.ReLU(inplace=True),
            *_normalised(inner, inner, 3, stride),
            nn.ReLU(inplace=True),
            *_normalised(inner, outputs, 1, 1),
        )
        changes = stride != 1 or inputs != outputs
        self.shortcut = nn.Sequential(*_normalised(inputs, outputs, 1, stride)) if changes else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.layers(inputs)
        outputs += inputs if self.shortcut is None else self.shortcut(inputs)
        activated: Tensor = self.relu(outputs)
        return activated


class ResNet50(nn.Module):
    """Four stages of bottlenecks, mean over pixels, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        blocks: list[nn.Module] = []
        inputs = 64
        for stage, (count, inner) in enumerate(STAGES):
            for number in range(count):
                blocks.append(Bottleneck(inputs, inner, 2 if stage and not number else 1))
                inputs = EXPANSION * inner
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks(self.stem(images))
        logits: Tensor = self.head(nn.functional.adaptive_avg_pool2d(features, 1).flatten(1))
        return logits


def _normalised(inputs: int, outputs: int, size: int, stride: int) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return conv, nn.BatchNorm2d(outputs)
