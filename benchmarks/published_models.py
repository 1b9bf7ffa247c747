"""Trainings whose memory somebody else published, rebuilt from their public code: as workloads.

gpt        rasbt/LLMs-from-scratch, ch05/10_llm-training-speed: GPT-2 of 124 million parameters
vit        rasbt/pytorch-memory-optim: torchvision's ViT-L/16 (Dosovitskiy et al. 2020)
bert       transformers' guide "Efficient Training on a Single GPU" of 2022: BERT-large

What decides on memory is as it was there: where gradients are freed (before a forward pass, after
one, or never: zeroed), what is kept as a buffer, which operators norms and attention are made of.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

import epochcast as ec

VOCABULARY, CONTEXT, WIDTH, HEADS, LAYERS, DROPOUT = 50257, 1024, 768, 12, 12, 0.1
MICRO_BATCHES = 4


class Same(Dataset[tuple[Tensor, ...]]):
    """One sample, again and again."""

    def __init__(self, *sample: Tensor) -> None:
        self.sample = sample

    def __len__(self) -> int:
        return 4096

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return self.sample


def _there(model: nn.Module, half: bool) -> nn.Module:
    """A model in bfloat16 is moved first and converted there, which cuts memory up."""
    if half and torch.cuda.is_available():
        model.cuda()
    return model.to(torch.bfloat16) if half else model


# -- GPT-2 of a book ------------------------------------------------------------------------------


def gpt(mask: str = "kept", native: bool = False, flash: bool = False, half: bool = False) -> Any:
    """A GPT as a book writes it, and with what its speed-ups change.

    Args:
        mask: ``"kept"`` in each layer, or made when it is needed.
        native: norms and activations of torch, in place of arithmetic.
        flash: attention of torch.
        half: weights in bfloat16, and a fused optimizer.
    """
    model = _there(GPT(mask == "kept", native, flash), half)
    tokens = torch.zeros(CONTEXT, dtype=torch.int64)
    return ec.Workload(
        model=model,
        train_data=Same(tokens, tokens),
        eval_data=Same(tokens, tokens),
        optimizer=torch.optim.AdamW(model.parameters(), weight_decay=0.1, fused=half or None),
        loss=lambda logits, tokens: functional.cross_entropy(
            logits.flatten(0, 1), tokens.flatten()
        ),
        batch_size=8,
    )


class Attention(nn.Module):
    """Causal attention of several heads."""

    def __init__(self, kept: bool, flash: bool) -> None:
        super().__init__()
        names = ("all",) if flash else ("query", "key", "value")
        width = 3 * WIDTH if flash else WIDTH
        self.inputs = nn.ModuleList(nn.Linear(WIDTH, width, bias=False) for _ in names)
        self.output = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(DROPOUT)
        if kept:
            self.register_buffer("mask", torch.triu(torch.ones(CONTEXT, CONTEXT), diagonal=1))

    def forward(self, x: Tensor) -> Tensor:
        samples, length, _ = x.shape
        split = (samples, length, -1, HEADS, WIDTH // HEADS)
        if len(self.inputs) == 1:
            q, k, v = self.inputs[0](x).view(split).permute(2, 0, 3, 1, 4)
            p = DROPOUT if self.training else 0.0
            mixed = functional.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
            joined = mixed.transpose(1, 2).contiguous().view(x.shape)
        else:
            q, k, v = (f(x).view(split).squeeze(2).transpose(1, 2) for f in self.inputs)
            scores = q @ k.transpose(2, 3)
            scores.masked_fill_(self._mask(length, x.device), -torch.inf)
            weights = self.dropout(torch.softmax(scores / math.sqrt(WIDTH // HEADS), dim=-1))
            joined = (weights @ v).transpose(1, 2).reshape(x.shape)
        out: Tensor = self.output(joined)
        return out

    def _mask(self, length: int, device: torch.device) -> Tensor:
        kept = getattr(self, "mask", None)
        if kept is not None:
            masked: Tensor = kept.bool()[:length, :length]
            return masked
        return torch.triu(torch.ones(length, length, device=device, dtype=torch.bool), diagonal=1)


class Norm(nn.Module):
    """A layer's norm, by arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(WIDTH))
        self.shift = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=-1, keepdim=True)
        variance = x.var(dim=-1, keepdim=True, unbiased=False)
        normed = (x - mean) / torch.sqrt(variance + 1e-5)
        return self.scale * normed + self.shift


class Gelu(nn.Module):
    """Its approximation by tanh, by arithmetic."""

    def forward(self, x: Tensor) -> Tensor:
        root = torch.sqrt(torch.tensor(2.0 / math.pi))
        return 0.5 * x * (1 + torch.tanh(root * (x + 0.044715 * torch.pow(x, 3))))


class Block(nn.Module):
    """Attention and a network of two layers, each after a norm and beside what went in."""

    def __init__(self, kept: bool, native: bool, flash: bool) -> None:
        super().__init__()
        self.attention = Attention(kept, flash)
        activation = nn.GELU(approximate="tanh") if native else Gelu()
        self.layers = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), activation, nn.Linear(4 * WIDTH, WIDTH)
        )
        self.norms = nn.ModuleList(_norm(native) for _ in range(2))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        for norm, part in zip(self.norms, (self.attention, self.layers), strict=True):
            shortcut = x
            x = norm(x)
            x = part(x)
            x = self.dropout(x)
            x = x + shortcut
        return x


def _norm(native: bool) -> nn.Module:
    return nn.LayerNorm(WIDTH) if native else Norm()


class GPT(nn.Module):
    """Blocks between embeddings and logits, whose weights are their own."""

    def __init__(self, kept: bool, native: bool, flash: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Embedding(CONTEXT, WIDTH)
        self.dropout = nn.Dropout(DROPOUT)
        self.blocks = nn.Sequential(*(Block(kept, native, flash) for _ in range(LAYERS)))
        self.norm = _norm(native)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        logits: Tensor = self.head(self.norm(self.blocks(self.dropout(x))))
        return logits


# -- a vision transformer -------------------------------------------------------------------------


def vit(half: bool = False, accumulated: bool = False) -> Any:
    """ViT-L/16, whose gradients are freed between forward and backward pass.

    Args:
        half: weights and images in bfloat16.
        accumulated: an update after four batches.
    """
    model = _there(ViT(), half)
    image = torch.zeros(3, 224, 224)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-5)
    calls = [0]

    def step(batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        logits = model(images.to(torch.bfloat16) if half else images)
        loss = functional.cross_entropy(logits.float(), labels)
        calls[0] += 1
        if accumulated:
            (loss / MICRO_BATCHES).backward()
            if calls[0] % MICRO_BATCHES == 0:
                optimizer.step()
                optimizer.zero_grad()
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    data = Same(image, torch.tensor(0))
    return ec.Workload(
        model=model, train_data=data, optimizer=optimizer, train_step=step, batch_size=64
    )


class ViT(nn.Module):
    """Patches of 16 × 16, 24 layers of 1,024."""

    def __init__(self, width: int = 1024, layers: int = 24) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.summary = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.zeros(1, 197, width))
        self.blocks = nn.Sequential(*(Encoder(width) for _ in range(layers)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).reshape(len(images), self.summary.shape[-1], -1).permute(0, 2, 1)
        x = torch.cat([self.summary.expand(len(images), -1, -1), x], dim=1)
        logits: Tensor = self.head(self.norm(self.blocks(x + self.places))[:, 0])
        return logits


class Encoder(nn.Module):
    """A layer of it; no dropout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attention = nn.MultiheadAttention(width, 16, batch_first=True)
        self.layers = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.first(inputs)
        x, _ = self.attention(x, x, x, need_weights=False)
        x = x + inputs
        return x + self.layers(self.second(x))


# -- BERT-large -----------------------------------------------------------------------------------


def bert(micro_batches: int = 1, checkpointing: bool = False) -> Any:
    """BERT-large as a classifier of 512 tokens, whose gradients are zeroed and stay.

    Args:
        micro_batches: for an update.
        checkpointing: of each layer, as transformers does it.
    """
    from transformers import AutoModelForSequenceClassification, BertConfig

    config = BertConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        attn_implementation="eager",
    )
    model = AutoModelForSequenceClassification.from_config(config)
    if checkpointing:
        model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)  # transformers' own, then
    step = partial(_bert_step, model, optimizer, micro_batches, [0])
    data = Same(torch.zeros(512, dtype=torch.int64), torch.tensor(0))
    return ec.Workload(
        model=model, train_data=data, optimizer=optimizer, train_step=step, batch_size=4
    )


def _bert_step(
    model: Callable[..., Any],
    optimizer: torch.optim.Optimizer,
    micro_batches: int,
    calls: list[int],
    batch: tuple[Tensor, Tensor],
) -> None:
    ids, labels = batch
    (model(input_ids=ids, labels=labels).loss / micro_batches).backward()
    calls[0] += 1
    if calls[0] % micro_batches == 0:
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
