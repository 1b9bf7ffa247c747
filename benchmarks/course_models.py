"""The language model of a course whose memory many measured, written anew from its description.

stanford-cs336/assignment2-systems, ``cs336-basics``: rotary positions, SwiGLU, root-mean-square
norms, attention, softmax and an AdamW by arithmetic. ``year`` is that of the course: how positions
are turned and masks are made differs.

    rows of memory_published.py ──▶ course(size, tokens, …) ──▶ a workload
"""

from __future__ import annotations

import math
from typing import Any

import torch
from published_models import Same
from torch import Tensor, nn
from torch.nn import functional

import epochcast as ec

SIZES = {  # width, layers, heads, width inside
    "small": (768, 12, 12, 3072),
    "medium": (1024, 24, 16, 4096),
    "large": (1280, 36, 20, 5120),
    "xl": (2560, 32, 32, 10240),
}


def course(
    size: str = "small",
    tokens: int = 512,
    vocabulary: int = 10_000,
    bfloat16: bool = False,
    year: int = 2026,
) -> Any:
    """One whole step after another, gradients freed before each.

    Args:
        size: of ``SIZES``.
        tokens: a sample has.
        vocabulary: different tokens.
        bfloat16: autocast of the forward pass.
        year: 2025 has positions looked up and pairs stacked, and torch's own cross entropy.
    """
    model = LanguageModel(size, tokens, vocabulary, year)
    optimizer = PlainAdamW(model.parameters(), {"lr": 1e-3})
    autocast = torch.autocast("cuda", torch.bfloat16, enabled=bfloat16)

    def step(batch: tuple[Tensor, Tensor]) -> None:
        given, wanted = batch
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            logits = model(given)
            loss = None if year == 2025 else cross_entropy(logits, wanted)
        if loss is None:
            loss = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        loss.backward()
        optimizer.step()

    sample = torch.zeros(tokens, dtype=torch.int64)
    return ec.Workload(
        model=model,
        train_data=Same(sample, sample),
        optimizer=optimizer,
        train_step=step,
        batch_size=4,
    )


def softmax(x: Tensor) -> Tensor:
    """Over the last dimension."""
    shifted = x - torch.max(x, dim=-1, keepdim=True)[0]
    raised = torch.exp(shifted)
    return raised / torch.sum(raised, dim=-1, keepdim=True)


def log_softmax(x: Tensor) -> Tensor:
    """Over the last dimension."""
    shifted = x - torch.max(x, dim=-1, keepdim=True)[0]
    return shifted - torch.log(torch.sum(torch.exp(shifted), dim=-1, keepdim=True))


def cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    """Its mean over all tokens."""
    logs = -log_softmax(logits)
    return torch.mean(torch.gather(logs, -1, wanted.unsqueeze(-1)))


class PlainAdamW(torch.optim.Optimizer):
    """Both moments are new tensors after each step."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update."""
        (group,) = self.param_groups
        for p in group["params"]:
            state, gradient = self.state[p], p.grad.data
            t = state.get("t", 1)
            p.data -= group["lr"] * 0.01 * p.data
            mean = state.get("m", torch.zeros_like(gradient))
            square = state.get("v", torch.zeros_like(gradient))
            mean = 0.9 * mean + (0.1 * gradient)
            square = 0.999 * square + (0.001 * torch.square(gradient))
            rate = group["lr"] * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            p.data -= rate * mean / (torch.sqrt(square) + 1e-8)
            state["m"], state["v"], state["t"] = mean, square, t + 1


class Projection(nn.Module):
    """A matrix product."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("...i,oi->...o", x, self.weight)


class Embedding(nn.Module):
    """Rows that are looked up."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width))

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight[ids, :]


class RootMeanSquare(nn.Module):
    """A norm, by arithmetic in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        given = x.dtype
        x = x.to(torch.float32)
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)
        x = x * scale
        return (self.weight * x).to(given)


class Rotary(nn.Module):
    """Pairs of a head, turned by the token's position."""

    def __init__(self, tokens: int, head: int, year: int) -> None:
        super().__init__()
        self.year = year
        turns = torch.outer(torch.arange(tokens), 10_000.0 ** -(torch.arange(0, head, 2) / head))
        table = torch.stack((torch.cos(turns), torch.sin(turns)))
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
        cos, sin = self._turns(positions)
        turned_first = cos * first - sin * second
        turned_second = sin * first + cos * second
        if self.year == 2025:
            return torch.stack((turned_first, turned_second), dim=-1).flatten(-2)
        return torch.concat((turned_first, turned_second), dim=-1)

    def _turns(self, positions: Tensor) -> tuple[Tensor, ...]:
        if self.year == 2025:
            return self.table[:, positions].unbind(0)
        return self.table[:, : positions.shape[-1]].unbind(0)


class Attention(nn.Module):
    """Causal, of several heads, by arithmetic."""

    def __init__(self, width: int, heads: int, rotary: Rotary) -> None:
        super().__init__()
        self.heads, self.rotary = heads, rotary
        self.query, self.key, self.value, self.output = (Projection(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.query(x), self.key(x), self.value(x)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        places = torch.arange(x.shape[1], device=x.device)
        positions = places.expand(len(x), 1, -1) if self.rotary.year == 2025 else places
        q = self.rotary(q, positions)
        k = self.rotary(k, positions)
        mask = (places[:, None] >= places)[None, None]
        scores = torch.einsum("...qd,...kd->...qk", q, k) / math.sqrt(k.shape[-1])
        scores = torch.where(mask, scores, float("-inf"))
        weights = softmax(scores)
        mixed = torch.einsum("...qk,...kd->...qd", weights, v)
        return self.output(mixed.transpose(1, 2).flatten(2).contiguous())


class SwiGlu(nn.Module):
    """A network of three matrices."""

    def __init__(self, width: int, inside: int) -> None:
        super().__init__()
        self.gate, self.up = (Projection(width, inside) for _ in range(2))
        self.down = Projection(inside, width)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x)
        return self.down(gate * torch.sigmoid(gate) * self.up(x))


class Block(nn.Module):
    """Attention and a network, each after a norm and beside what went in."""

    def __init__(self, width: int, heads: int, inside: int, rotary: Rotary) -> None:
        super().__init__()
        self.attention = Attention(width, heads, rotary)
        self.network = SwiGlu(width, inside)
        self.first, self.second = (RootMeanSquare(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        attended = x + self.attention(self.first(x))
        return attended + self.network(self.second(attended))


class LanguageModel(nn.Module):
    """Blocks between embeddings and logits, whose weights are their own."""

    def __init__(self, size: str, tokens: int, vocabulary: int, year: int) -> None:
        super().__init__()
        width, layers, heads, inside = SIZES[size]
        self.embedding = Embedding(vocabulary, width)
        rotary = Rotary(tokens, width // heads, year)
        self.blocks = nn.ModuleList(Block(width, heads, inside, rotary) for _ in range(layers))
        self.norm, self.head = RootMeanSquare(width), Projection(width, vocabulary)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
