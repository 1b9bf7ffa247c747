"""The models of the built-in workloads, small enough to read, with their parameter counts.

    Mlp            depth ≥ 1 hidden ReLU layers of one width
    OneConvNet     conv 3×3 → ReLU → linear
    CifarResNet    He et al. 2015, arXiv:1512.03385, section 4.2: 6n + 2 layers, 0.27 M for n = 3
    CharGpt        decoder-only transformer with pre-normalisation (Radford et al. 2019)

Shapes: B batch, C channels, T context (tokens), W width (features), V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_GPT_INIT_STD = 0.02  # Radford et al. 2018, "Improving language understanding", section 4.1
_GPT_EXPANSION = 4  # feed-forward width over model width: Vaswani et al. 2017, section 3.3


class Mlp(nn.Sequential):
    """(B, inputs) → (B, classes), through ``depth`` hidden ReLU layers of ``width``."""

    def __init__(self, inputs: int, width: int, depth: int, classes: int) -> None:
        layers: list[nn.Module] = []
        for fan_in in (inputs, *[width] * (depth - 1)):
            layers += [nn.Linear(fan_in, width), nn.ReLU()]
        super().__init__(*layers, nn.Linear(width, classes))


class OneConvNet(nn.Sequential):
    """(B, 3, size, size) → (B, classes), through one 3×3 convolution to ``width`` channels."""

    def __init__(self, width: int, size: int, classes: int) -> None:
        super().__init__(
            # Unpadded, 224 × 224 would become 222 × 222 and not fit the linear layer.
            nn.Conv2d(3, width, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(width * size * size, classes),
        )


class _ResidualBlock(nn.Module):
    """Two 3×3 convolutions around a shortcut; halves the image where it doubles the channels."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.stride = 1 if channels == width else 2
        self.extra = width - channels
        self.conv1 = nn.Conv2d(channels, width, 3, self.stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return functional.relu(y + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        # Option A of the paper: subsample, and zeros for the new channels; no parameters.
        if self.stride == 1:
            return x
        halved = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(halved, (0, 0, 0, 0, 0, self.extra))


class CifarResNet(nn.Module):
    """(B, 3, H, W) → (B, classes): three stages of ``blocks`` blocks, of 1, 2 and 4 × ``width``."""

    def __init__(self, blocks: int, width: int, classes: int) -> None:
        super().__init__()
        widths = [stage * width for stage in (1, 2, 4) for _ in range(blocks)]
        pairs = zip([width, *widths], widths, strict=False)
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.blocks = nn.Sequential(*(_ResidualBlock(before, after) for before, after in pairs))
        self.head = nn.Linear(4 * width, classes)
        self.apply(_he_init)

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks(self.stem(images))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


class _Attention(nn.Module):
    """Causal self-attention, (B, T, W) → (B, T, W)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        heads = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each (B, heads, T, W / heads)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=True
        )
        projected: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return projected


class _GptBlock(nn.Module):
    """Attention, then a feed-forward network, each around a residual: (B, T, W) → (B, T, W)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = _Attention(width, heads, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, _GPT_EXPANSION * width),
            nn.GELU(),
            nn.Linear(_GPT_EXPANSION * width, width),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        mixed: Tensor = x + self.dropout(self.feed(self.norm2(x)))
        return mixed


class CharGpt(nn.Module):
    """(B, T) tokens → (B, T, V) logits; the output layer shares the token embedding's weight."""

    def __init__(
        self, *, vocabulary: int, context: int, layers: int, width: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(_GptBlock(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.apply(_gpt_init)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.tokens(tokens) + self.positions(positions))
        return functional.linear(self.norm(self.blocks(x)), self.tokens.weight)


def _he_init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):  # He et al. 2015, arXiv:1502.01852
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def _gpt_init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_GPT_INIT_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
