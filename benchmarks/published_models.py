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


def vit(
    precision: str = "float32", accumulated: bool = False, optimizer: str = "adam-of-june-2023"
) -> Any:
    """ViT-L/16, whose gradients are freed between forward and backward pass.

    Args:
        precision: ``"bfloat16"`` has weights and images in it, ``"mixed"`` is autocast to float16
            with scaled losses.
        accumulated: an update after four batches.
        optimizer: ``"adam-of-june-2023"``, as it was measured; ``"adam"`` of this torch; ``"sgd"``.
    """
    model = ViT()
    half = precision == "bfloat16"
    if half:  # before it is moved: what Fabric's setup reserved was what 16 bits take
        model.to(torch.bfloat16)
    updates = UPDATES[optimizer](model.parameters())
    scaler = torch.amp.GradScaler("cuda", enabled=precision == "mixed")
    autocast = torch.autocast("cuda", torch.float16, enabled=precision == "mixed")
    calls = [0]

    def step(batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        with autocast:
            logits = model(images.to(torch.bfloat16) if half else images)
        loss = functional.cross_entropy(logits.float(), labels)
        if not accumulated:
            updates.zero_grad()
        scaler.scale(loss / MICRO_BATCHES if accumulated else loss).backward()
        calls[0] += 1
        if not accumulated or calls[0] % MICRO_BATCHES == 1:  # the first batch is an update
            scaler.step(updates)
            scaler.update()
            if accumulated:
                updates.zero_grad()

    data = Same(torch.zeros(3, 224, 224), torch.tensor(0))
    return ec.Workload(
        model=model, train_data=data, optimizer=updates, train_step=step, batch_size=64
    )


class AdamOfJune2023(torch.optim.Adam):
    """Its update with two temporaries of all parameters; pytorch#104780 made it one in July."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update."""
        (group,) = self.param_groups
        beta, gamma = group["betas"]
        parameters = [p for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in parameters]
        for p in parameters:
            if not self.state[p]:
                self.state[p] = {"step": 0, "exp_avg": torch.zeros_like(p)}
                self.state[p]["exp_avg_sq"] = torch.zeros_like(p)
            self.state[p]["step"] += 1
        means = [self.state[p]["exp_avg"] for p in parameters]
        squares = [self.state[p]["exp_avg_sq"] for p in parameters]
        torch._foreach_mul_(means, beta)
        torch._foreach_add_(means, gradients, alpha=1 - beta)
        torch._foreach_mul_(squares, gamma)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - gamma)
        roots = torch._foreach_sqrt(squares)
        scales = [math.sqrt(1 - gamma ** self.state[p]["step"]) for p in parameters]
        torch._foreach_div_(roots, scales)
        divisors = torch._foreach_add(roots, group["eps"])
        rates = [-group["lr"] / (1 - beta ** self.state[p]["step"]) for p in parameters]
        torch._foreach_addcdiv_(parameters, means, divisors, rates)


UPDATES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam-of-june-2023": partial(AdamOfJune2023, lr=5e-5),
    "adam": partial(torch.optim.Adam, lr=5e-5),
    "sgd": partial(torch.optim.SGD, lr=0.01),
}


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
        self.attention = AttentionOf2023(width, 16)
        self.layers = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.attention(self.first(inputs)) + inputs
        return x + self.layers(self.second(x))


class AttentionOf2023(nn.Module):
    """As ``nn.MultiheadAttention``, its heads as flash attention took them before torch 2.2.

    What came out of it lay as samples × tokens, whatever went in, and was copied once more.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inputs, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        samples, length, width = x.shape
        all_three = self.inputs(x.transpose(0, 1)).unflatten(-1, (3, width))
        all_three = all_three.unsqueeze(0).transpose(0, -2).squeeze(-2).contiguous()
        apart = (length, samples * self.heads, width // self.heads)
        together = (samples, self.heads, length, width // self.heads)
        q, k, v = (part.view(apart).transpose(0, 1).view(together) for part in all_three)
        if all_three.dtype != torch.float32:
            q, k, v = (part.transpose(1, 2).contiguous().transpose(1, 2) for part in (q, k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v)
        mixed = mixed.permute(2, 0, 1, 3).contiguous().view(length * samples, width)
        return self.output(mixed).view(length, samples, width).transpose(0, 1)


# -- BERT-large -----------------------------------------------------------------------------------


def bert(micro_batches: int = 1, checkpointing: bool = False, kept_scores: bool = True) -> Any:
    """BERT-large as a classifier of 512 tokens, whose gradients are zeroed and stay.

    Args:
        micro_batches: for an update.
        checkpointing: of each layer, as transformers does it.
        kept_scores: by attention's softmax, as it was measured; not so by this torch's.
    """
    from transformers import AttentionInterface, AutoModelForSequenceClassification, BertConfig

    AttentionInterface.register("of-2022", attention_of_2022)
    config = BertConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        attn_implementation="of-2022" if kept_scores else "eager",
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


class SoftmaxOf2021(torch.autograd.Function):
    """Keeps what goes in beside what comes out; from torch 1.11 on it does not (pytorch#65242)."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        weights = torch.softmax(scores, dim=-1)
        ctx.save_for_backward(scores, weights)
        return weights

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        _, weights = ctx.saved_tensors
        return torch._softmax_backward_data(gradients[0], weights, -1, weights.dtype)


def attention_of_2022(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """As transformers wrote BERT's: every sample has a mask, one of ones if none was given.

    Args:
        module: whose attention it is.
        query, key, value: samples × heads × tokens × width.
        attention_mask: not given here.
        dropout: of weights, in training.
    """
    scores = torch.matmul(query, key.transpose(-1, -2))
    scores = scores / math.sqrt(query.shape[-1])
    scores = scores + torch.zeros(len(query), 1, 1, query.shape[2], device=query.device)
    weights = SoftmaxOf2021.apply(scores)
    weights = functional.dropout(weights, dropout, module.training)
    mixed = torch.matmul(weights, value)
    return mixed.permute(0, 2, 1, 3).contiguous(), weights
