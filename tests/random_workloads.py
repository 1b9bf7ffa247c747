"""Workloads of random modules, drawn by hypothesis: sequences (B, T, W) in, classes out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Dataset

from epochcast.profiler.workload import Workload

CLASSES = 5
VOCABULARY = 192  # tokens of 24 samples of length 8


class Samples(Dataset):
    """Sequences of floats or, for an embedding, of tokens, none of which comes twice."""

    def __init__(self, length, width, tokens):
        self.length, self.width, self.tokens = length, width, tokens

    def __len__(self):
        return 24

    def __getitem__(self, index):
        if self.tokens:
            return torch.arange(self.length) + index * self.length, index % CLASSES
        generator = torch.Generator().manual_seed(index)
        return torch.randn(self.length, self.width, generator=generator), index % CLASSES


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Checkpointed(nn.Module):
    def __init__(self, inner, reentrant):
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


class OverFeatures(nn.Module):
    """A module that takes (B, W, T), on transposed views."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.transpose(1, 2)).transpose(1, 2)


class AsImage(nn.Module):
    """A convolution of (B, 1, T, W), made of views."""

    def __init__(self, width, groups):
        super().__init__()
        self.conv = nn.Conv2d(1, 2 * groups, 3, padding=1)
        self.back = nn.ConvTranspose2d(2 * groups, 1, 3, padding=1)

    def forward(self, x):
        return self.back(functional.relu(self.conv(x[:, None]), inplace=True)).squeeze(1)


class Pooled(nn.Module):
    def forward(self, x):
        return functional.interpolate(functional.max_pool1d(x, 2), size=x.shape[-1])


class SelfAttention(nn.Module):
    def __init__(self, width, dropout, mask):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, dropout=dropout, batch_first=True)
        self.mask = mask

    def forward(self, x):
        mask = None
        if self.mask:
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1]).to(x)
        return self.attention(x, x, x, need_weights=False, attn_mask=mask)[0]


class Flash(nn.Module):
    def __init__(self, width, dropout, causal):
        super().__init__()
        self.qkv, self.dropout, self.causal = nn.Linear(width, 3 * width), dropout, causal

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(
            q, k, v, dropout_p=self.dropout, is_causal=self.causal
        )
        return y.transpose(1, 2).flatten(2)


class Recurrent(nn.Module):
    def __init__(self, kind, width, layers, dropout, both):
        super().__init__()
        hidden = width // 2 if both else width
        self.cell = kind(
            width, hidden, layers, dropout=dropout, batch_first=True, bidirectional=both
        )

    def forward(self, x):
        return self.cell(x)[0]


class Tied(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.one, self.other = nn.Linear(width, width), nn.Linear(width, width)
        self.other.weight = self.one.weight

    def forward(self, x):
        return self.other(torch.tanh(self.one(x)))


class Frozen(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner.requires_grad_(False)

    def forward(self, x):
        return self.inner(x)


class InPlace(nn.Module):
    def forward(self, x):
        y = x * 2
        y.add_(1).clamp_(min=-3)
        y[:, 0] = 0
        return y


class Positions(nn.Module):
    """A buffer, a constant that is no buffer, and a view of each."""

    def __init__(self, width):
        super().__init__()
        self.register_buffer("table", torch.zeros(50, width))
        self.constant = torch.ones(50, width)

    def forward(self, x):
        return x + self.table[: x.shape[1]] + self.constant[: x.shape[1]]


class Head(nn.Module):
    def __init__(self, embedding, body, width):
        super().__init__()
        self.embedding, self.body, self.out = embedding, body, nn.Linear(width, CLASSES)

    def forward(self, x):
        return self.out(self.body(self.embedding(x)).mean(1))


@dataclass
class Drawn:
    """A recipe: hypothesis draws it once and the test builds it twice."""

    width: int
    length: int
    layers: tuple
    embedding: str
    optimizer: str
    precision: str
    accumulation: int
    batch_size: int

    def build(self):
        torch.manual_seed(0)
        tokens = self.embedding != "none"
        embedding = (
            nn.Embedding(VOCABULARY, self.width, sparse=self.embedding == "sparse")
            if tokens
            else nn.Identity()
        )
        body = nn.Sequential(*(layer(self.width) for layer in self.layers))
        model = Head(embedding, body, self.width)
        trainable = [p for p in model.parameters() if p.requires_grad]
        return Workload(
            model=model,
            train_data=Samples(self.length, self.width, tokens),
            optimizer=OPTIMIZERS[self.optimizer](trainable),
            loss=functional.cross_entropy,
            batch_size=self.batch_size,
            shuffle=False,
            accumulation=self.accumulation,
            precision=self.precision,
        )


class Named:
    """A function of the width that prints as its source."""

    def __init__(self, text):
        self.text = text

    def __call__(self, width):
        return eval(f"lambda w: {self.text}", globals())(width)

    def __repr__(self):
        return self.text


LEAVES = [
    "nn.Linear(w, w)",
    "nn.Linear(w, w, bias=False)",
    "OverFeatures(nn.Sequential(nn.Conv1d(w, w, 1), nn.ReLU(inplace=True)))",
    "nn.GELU()",
    "nn.SiLU()",
    "nn.Softmax(-1)",
    "nn.Dropout(0.1)",
    "nn.LayerNorm(w)",
    "nn.RMSNorm(w)",
    "OverFeatures(nn.BatchNorm1d(w))",
    "OverFeatures(nn.GroupNorm(2, w))",
    "OverFeatures(nn.Conv1d(w, w, 3, padding=1))",
    "OverFeatures(nn.Conv1d(w, w, 3, padding=1, groups=2, bias=False))",
    "OverFeatures(Pooled())",
    "AsImage(w, 1)",
    "AsImage(w, 3)",
    "SelfAttention(w, 0.0, False)",
    "SelfAttention(w, 0.1, True)",
    "Flash(w, 0.0, True)",
    "Flash(w, 0.1, False)",
    "nn.TransformerEncoderLayer(w, 2, 2 * w, batch_first=True)",
    "Recurrent(nn.LSTM, w, 1, 0.0, False)",
    "Recurrent(nn.LSTM, w, 2, 0.1, True)",
    "Recurrent(nn.GRU, w, 1, 0.0, False)",
    "Recurrent(nn.GRU, w, 2, 0.1, True)",
    "Recurrent(nn.RNN, w, 1, 0.0, False)",
    "Tied(w)",
    "InPlace()",
    "Positions(w)",
]
WRAPPERS = [
    "Residual({})",
    "Frozen({})",
    "Checkpointed({}, True)",
    "Checkpointed({}, False)",
    "nn.Sequential({}, nn.Tanh())",
]

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-3),
    "sgd foreach": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, foreach=True),
    "sgd fused": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p),
    "adam foreach": lambda p: torch.optim.Adam(p, amsgrad=True, foreach=True),
    "adamw": lambda p: torch.optim.AdamW(p),
    "adamw foreach": lambda p: torch.optim.AdamW(p, foreach=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, momentum=0.5),
    "rmsprop foreach": lambda p: torch.optim.RMSprop(p, foreach=True),
    "adagrad": lambda p: torch.optim.Adagrad(p),
    "nadam": lambda p: torch.optim.NAdam(p),
}
SPARSE_OPTIMIZERS = {
    "sparse adam": lambda p: SparseAndDense(p),
    "sgd": OPTIMIZERS["sgd"],
}


class SparseAndDense(torch.optim.Optimizer):
    """SparseAdam for the first parameter, an embedding's; SGD for the others."""

    def __init__(self, parameters):
        super().__init__(parameters, {})
        first, *others = parameters
        self.parts = [torch.optim.SparseAdam([first]), torch.optim.SGD(others, lr=1e-3)]
        self.state = self.parts[0].state

    def step(self, closure=None):
        for part in self.parts:
            part.step()


OPTIMIZERS |= SPARSE_OPTIMIZERS


def layers():
    leaf = st.sampled_from(LEAVES)
    wrapped = st.builds(str.format, st.sampled_from(WRAPPERS), leaf)
    return st.lists(st.builds(Named, st.one_of(leaf, wrapped)), min_size=1, max_size=4)


@st.composite
def workloads(draw):
    embedding = draw(st.sampled_from(["none", "none", "dense", "sparse"]))
    names = SPARSE_OPTIMIZERS if embedding == "sparse" else sorted(OPTIMIZERS)
    names = [n for n in names if embedding == "sparse" or n != "sparse adam"]
    return Drawn(
        width=draw(st.sampled_from([4, 8, 12])),
        length=draw(st.integers(2, 8)),
        layers=tuple(draw(layers())),
        embedding=embedding,
        optimizer=draw(st.sampled_from(names)),
        precision=draw(st.sampled_from(["fp32", "bf16"])),
        accumulation=draw(st.integers(1, 3)),
        batch_size=draw(st.integers(2, 6)),
    )
