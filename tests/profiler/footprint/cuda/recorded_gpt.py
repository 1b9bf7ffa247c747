"""The small GPT whose allocations on a GPU somebody recorded, written anew from its description.

Source of the recordings and of the description: github.com/NiuHuangxiaozi/assignment2-systems,
commit 9d868b9 (MIT), ``cs336_basics/`` and ``cs336_systems/profile_memory/``: 4 layers of width 512
with 16 heads, SwiGLU of 1,344, rotary positions, 10,000 tokens, batches of 10, an Adam that
changes nothing in place, three steps on torch 2.6.

Two habits of torch 2.6 are done by hand: ``trunc_normal_`` works in place (here it does nothing),
and a full slice is an operator.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import nn

VOCABULARY, WIDTH, LAYERS, HEADS, HIDDEN, LONGEST = 10_000, 512, 4, 16, 1344, 256
BATCH, STEPS = 10, 3
BETAS, EPSILON, RATE = (0.9, 0.999), 1e-8, 1e-3


class Projection(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, device="cuda"))

    def forward(self, x):
        return torch.einsum("...i,oi->...o", x, self.weight)


class Embedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(VOCABULARY, WIDTH, device="cuda"))

    def forward(self, tokens):
        return self.weight[tokens]


class RootMeanSquare(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH, device="cuda"))

    def forward(self, x):
        given = x.dtype
        x = x.to(torch.float32)
        size = torch.sqrt(torch.mean(x**2, dim=-1, keepdim=True) + 1e-5)
        scaled = x / size * self.weight
        return scaled.to(given)


class Rotary(nn.Module):
    """Its tables stay on the CPU and are copied for every call."""

    def __init__(self):
        super().__init__()
        pairs = WIDTH // HEADS // 2
        angles = torch.outer(
            torch.arange(LONGEST, dtype=torch.float32), torch.linspace(1, 0.01, pairs)
        )
        self.register_buffer("sines", torch.sin(angles), persistent=False)
        self.register_buffer("cosines", torch.cos(angles), persistent=False)

    def forward(self, x):
        positions = torch.arange(x.shape[-2])
        sines = self.sines[positions].to("cuda")
        cosines = self.cosines[positions].to("cuda")
        sines, cosines = sines.unsqueeze(-1), cosines.unsqueeze(-1)
        x = x.unflatten(-1, (x.shape[-1] // 2, 2))
        first = cosines * x[..., :1] - sines * x[..., 1:]
        second = sines * x[..., :1] + cosines * x[..., 1:]
        turned = torch.cat([first, second], dim=-1)
        return turned.flatten(-2)


def softmax(x):
    largest, _ = torch.max(x, dim=-1, keepdim=True)
    return torch.exp(x - largest) / torch.sum(torch.exp(x - largest), dim=-1, keepdim=True)


def attend(q, k, v, mask):
    mask = mask.to(q.device)
    products = torch.einsum("...qd,...kd->...qk", q, k)
    scores = products / torch.sqrt(torch.tensor(q.shape[-1], device=products.device))
    masked = scores.masked_fill_(~mask.bool(), -float("inf"))
    weights = softmax(masked)
    return torch.einsum("...qk,...kd->...qd", weights, v)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.rotary = Rotary()
        self.query, self.key = Projection(WIDTH, WIDTH), Projection(WIDTH, WIDTH)
        self.value, self.output = Projection(WIDTH, WIDTH), Projection(WIDTH, WIDTH)

    def forward(self, x):
        tokens = x.shape[-2]
        q, k, v = self.query(x), self.key(x), self.value(x)
        q, k, v = (t.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(-2, -3) for t in (q, k, v))
        q = self.rotary(q)
        k = self.rotary(k)
        mask = torch.tril(torch.ones(tokens, tokens))
        o = attend(q, k, v, mask)
        o = o.transpose(-2, -3).flatten(-2)
        return self.output(o)


class SwiGlu(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.down = Projection(WIDTH, HIDDEN), Projection(HIDDEN, WIDTH)
        self.up = Projection(WIDTH, HIDDEN)

    def forward(self, x):
        a = self.gate(x)
        b = a * torch.sigmoid(a)
        c = self.up(x)
        bc = b * c
        return self.down(bc)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first_norm, self.second_norm = RootMeanSquare(), RootMeanSquare()
        self.attention, self.mlp = Attention(), SwiGlu()

    def forward(self, x):
        normed = self.first_norm(x)
        attended = self.attention(normed)
        x1 = attended + x
        normed_again = self.second_norm(x1)
        fed = self.mlp(normed_again)
        return fed + x1


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = Embedding()
        self.layers = nn.ModuleList([Block() for _ in range(LAYERS)])
        self.norm, self.head = RootMeanSquare(), Projection(WIDTH, VOCABULARY)

    def forward(self, x):
        x = self.embedding(x)
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        return self.head(x)


def loss_of(x, target):
    samples = x.shape[0]
    largest, _ = torch.max(x, dim=-1, keepdim=True)
    logs = x - largest - torch.log(torch.sum(torch.exp(x - largest), dim=-1, keepdim=True))
    wanted = torch.zeros_like(logs)
    wanted.scatter_(-1, target.unsqueeze(-1), 1)
    return -torch.sum(wanted * logs) / samples


class PlainAdam(torch.optim.Optimizer):
    """Every moment and every parameter is a new tensor after each step."""

    def __init__(self, parameters):
        super().__init__(parameters, {})
        for p in self.param_groups[0]["params"]:
            zeros = {"m": torch.zeros_like(p.data), "v": torch.zeros_like(p.data)}
            self.state[p] = {**zeros, "t": 0}
            del zeros

    def step(self):
        first, second = BETAS
        for p in self.param_groups[0]["params"]:
            t = self.state[p]["t"] + 1
            rate = RATE * math.sqrt(1 - second**t) / (1 - first**t)
            grad = p.grad.data
            m = self.state[p]["m"]
            new_m = first * m + (1 - first) * grad
            self.state[p]["m"] = new_m
            v = self.state[p]["v"]
            new_v = second * v + (1 - second) * grad**2
            self.state[p]["v"] = new_v
            self.state[p]["t"] = t
            p.data = p.data - rate * (new_m / (torch.sqrt(new_v) + EPSILON))
            p.data = p.data - RATE * 0.0 * p.data


def full_slice(x, dim):
    return torch.ops.aten.slice.Tensor(x, dim, 0, 2**63 - 1)


def run(context, *, trains, autocast):
    """The recorded program: forward only, or three steps."""
    model = Gpt()
    optimizer = PlainAdam(model.parameters()) if trains else None
    tokens = torch.randint(0, VOCABULARY, (BATCH, context)).to("cuda")
    precision = torch.autocast("cuda", dtype=torch.bfloat16) if autocast else nullcontext()
    if not trains:
        for _ in range(STEPS):
            with precision:
                model(tokens)
        return
    labels = torch.randint(0, VOCABULARY, (BATCH,)).to("cuda")
    with precision:
        for _ in range(STEPS):
            optimizer.zero_grad()
            logits = model(tokens)
            predicted = full_slice(full_slice(logits, 0).select(1, -1), 1)
            loss = loss_of(predicted, labels)
            loss.backward()
            optimizer.step()
    del model
