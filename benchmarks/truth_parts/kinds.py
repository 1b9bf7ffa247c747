"""Kinds of truth: seconds of a step as a pure function of batch size B and one knob x.

    affine       launch + B·(load + w²)                        what any model should know
    waves        ⌈⌈B·rows/64⌉·⌈w/64⌉ / processors⌉ · w         tiles of a matrix product, in waves
    roofline     max(FLOPs / speed, bytes / bandwidth)         (Williams et al. 2009)
    cache        B·w² that is dearer where it left the cache
    loader       max(compute, B·load)                          a loader that works beside it
    attention    B·(L + L²)                                    context length
    launch       max(launch, B·w²)                             a floor, hard
    dispatch     the slower of a host (launches + B·load) and a device (FLOPs + bytes), hard or soft
    alignment    w rounded up to 8, 64 or 128                  tensor cores
    algorithm    another algorithm beyond a size of the problem
    patch        tokens n = (224/p)², B·(n + n²)               a knob that makes it cheaper
    stride       B/s²                                          another
    r4           2 ms + B·(r/16)²·2 µs + B·(r/16)⁴·40 ns       attention over an image
    r3, w2.7     B·r³, B·w^2.7                                 powers that are no square
    doubling     B·2^k                                         no power at all
    frozen       B·(L + 2·(L − k))                             forward all, backward the layers left
    sparsity     B·max(least, 1 − k/100)                       in per cent; dense below some time
    added        B·(L + k), from k = 0 on                      adapters, extra layers, none at first
    drift        affine; each round is slower or faster as a whole
    steady, stragglers, glitch, spells, bimodal                affine, in raw steps: see tails.py

Times are in seconds, widths relative to 128. Whatever has a size is drawn log-uniformly from the
seed; only r4 is exactly what it says. A later run of a truth differs by the noise alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf, log
from typing import Literal

import numpy as np

from epochcast.records import Footprint

from .tails import TAILS, Tail

Surface = Callable[[float, float], float]  # of batch size and knob


class Draw:
    """Random parameters of one truth."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def between(self, low: float, high: float) -> float:
        """Log-uniformly."""
        return float(np.exp(self._rng.uniform(log(low), log(high))))

    def one_of(self, values: Sequence[float]) -> float:
        """Any of them."""
        return float(values[self._rng.integers(len(values))])

    def launch(self) -> float:
        """Seconds of a step that do not depend on its work."""
        return self.between(1e-3, 6e-3)

    def sample(self) -> float:
        """Seconds of one sample at a middle size: 10 to 60 ms at a batch of 64."""
        return self.between(1.5e-4, 1e-3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """One drawn truth.

    Attributes:
        seconds: of a step.
        flops, bytes_moved: of a step.
        parameters: of the model.
    """

    seconds: Surface
    flops: Surface
    bytes_moved: Surface
    parameters: Callable[[float], float]
    operators: int = 200

    def footprint(self, batch: int, size: float) -> Footprint:
        """What a dry run would have counted."""
        flops = max(1, round(self.flops(batch, size)))
        return Footprint.of_counts(
            flops=flops,
            aligned_flops=flops,
            bytes_moved=max(1, round(self.bytes_moved(batch, size))),
            operators=self.operators,
            parameters=max(1, round(self.parameters(size))),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of truth and what is natural to measure of it.

    Attributes:
        draw: one truth from random parameters.
        knob: what the knob is called.
        values: four measured values, of which the first, second and last are three.
        scales: that the values are multiplied with, one of them drawn; a width is a whole number.
        beyond: asked below, if at all, and above the range; default: half the least, twice the
            largest.
        drift: standard deviation of the logarithm of what a whole round has in common.
        tail: of its single steps, which are measured then instead of epochs.
    """

    draw: Callable[[Draw], Truth]
    knob: str = "width"
    values: tuple[int, ...] = (64, 128, 256, 512)
    scales: tuple[float, ...] = (0.75, 1.0, 1.5, 2.0)
    beyond: tuple[int | None, int] | None = None
    drift: float = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    tail: Tail | None = None


def _dense(seconds: Surface, layers: int = 8) -> Truth:
    """Counts of a stack of square layers of width x, each sample passing through once."""
    return Truth(
        seconds=seconds,
        flops=lambda b, w: 6 * layers * b * w * w,
        bytes_moved=lambda b, w: layers * (24 * b * w + 16 * w * w),
        parameters=lambda w: layers * w * w,
    )


def _image(seconds: Surface, tokens: Callable[[float], float], mixing: float) -> Truth:
    """Counts of a network over tokens, with attention of this weight beside the linear part."""
    return Truth(
        seconds=seconds,
        flops=lambda b, x: 1e7 * b * (tokens(x) + mixing * tokens(x) ** 2),
        bytes_moved=lambda b, x: 1e4 * b * tokens(x) + 1e9,
        parameters=lambda x: 2e7,
    )


def affine(draw: Draw) -> Truth:
    """launch + B·(load + c·w²): inside the model's own family."""
    launch, load, c = draw.launch(), draw.between(1e-5, 1e-4), draw.sample() / 4
    return _dense(lambda b, w: launch + b * (load + c * (w / 128) ** 2))


def waves(draw: Draw) -> Truth:
    """Tiles of 64 × 64, so many at once: a step where one more wave begins."""
    launch, rows = draw.launch(), draw.one_of((4, 16, 49, 196))
    processors, c = draw.one_of((46, 80, 108, 132)), draw.between(1e-3, 6e-3)

    def seconds(b: float, w: float) -> float:
        tiles = ceil(b * rows / 64) * ceil(w / 64)
        return launch + c * ceil(tiles / processors) * w / 128

    return _dense(seconds)


def roofline(draw: Draw) -> Truth:
    """Memory-bound where weights dominate, compute-bound beyond a batch size."""
    launch, crossing = draw.launch(), draw.between(40, 200)
    c, weights = draw.sample() / 4, draw.between(0.2, 0.7)

    def seconds(b: float, w: float) -> float:
        compute = b * (w / 128) ** 2
        moved = crossing * (weights * (w / 128) ** 2 + (1 - weights) * b / 100 * w / 128)
        return launch + c * max(compute, moved)

    return _dense(seconds)


def cache(draw: Draw) -> Truth:
    """Work that is dearer by a factor once B·w no longer fits."""
    launch, c, dearer = draw.launch(), draw.sample() / 4, draw.between(1.3, 2.2)
    fits, width = draw.between(3e3, 5e4), draw.between(0.1, 0.7)

    def seconds(b: float, w: float) -> float:
        outside = 1 / (1 + (fits / (b * w)) ** (1 / width))
        return launch + c * b * (w / 128) ** 2 * (1 + (dearer - 1) * outside)

    return _dense(seconds)


def loader(draw: Draw) -> Truth:
    """The slower of computing and loading."""
    launch, c, load = draw.launch(), draw.sample() / 4, draw.between(1e-4, 1.5e-3)
    return _dense(lambda b, w: max(launch + c * b * (w / 128) ** 2, load * b))


def attention(draw: Draw) -> Truth:
    """Linear in the context, and its square."""
    launch, c, cross = draw.launch(), draw.sample() / 2, draw.between(256, 4096)
    return Truth(
        seconds=lambda b, n: launch + c * b * (n / 256) * (1 + n / cross),
        flops=lambda b, n: 6e7 * b * n * (1 + n / cross),
        bytes_moved=lambda b, n: 1e5 * b * n + 1e9,
        parameters=lambda n: 1e8 + 768 * n,
    )


def launch_floor(draw: Draw) -> Truth:
    """Never below what the launches take, which half of the range does not exceed."""
    c, crossing = draw.sample() / 4, draw.between(48, 400)
    return _dense(lambda b, w: c * max(crossing, b * (w / 128) ** 2))


def dispatch(draw: Draw) -> Truth:
    """A host launches kernels and loads samples ahead of a device: launch-bound below, device-bound
    above, with p = 2 or 4 between, or a corner."""
    launch, load = draw.between(5e-3, 2e-2), draw.between(1e-6, 2e-5)
    balance, p = draw.between(8, 40), draw.one_of((2, 4, inf))
    counts = _dense(lambda b, w: 0.0)
    flop = draw.sample() / 4 / counts.flops(1, 128)

    def seconds(b: float, w: float) -> float:
        device = flop * (counts.flops(b, w) + balance * counts.bytes_moved(b, w))
        return float(np.linalg.norm([launch + load * b, device], p))

    return _dense(seconds)


def alignment(draw: Draw) -> Truth:
    """Widths are rounded up; sizes that are not aligned pay for more."""
    launch, c, to = draw.launch(), draw.sample() / 4, draw.one_of((8, 64, 128))
    return _dense(lambda b, w: launch + c * b * (ceil(w / to) * to / 128) ** 2)


def algorithm(draw: Draw) -> Truth:
    """A library that changes its mind at some B·w, up or down."""
    launch, c, other = draw.launch(), draw.sample() / 4, draw.between(0.7, 1.4)
    switch = draw.between(4e3, 6e4)

    def seconds(b: float, w: float) -> float:
        return launch + c * b * (w / 128) ** 2 * (other if b * w > switch else 1)

    return _dense(seconds)


def patch(draw: Draw) -> Truth:
    """Vision transformer: a larger patch makes fewer tokens."""
    launch, c, mixing = draw.launch(), draw.sample() / 200, draw.between(1e-4, 3e-3)

    def tokens(p: float) -> float:
        return (224 / p) ** 2

    return _image(
        lambda b, p: launch + c * b * (tokens(p) + mixing * tokens(p) ** 2), tokens, mixing
    )


def stride(draw: Draw) -> Truth:
    """Convolutions after a stride: 1/s², beside a part that does not change."""
    launch, c, rest = draw.launch(), draw.sample() * 4, draw.between(0.01, 0.2)
    return _image(
        lambda b, s: launch + c * b * (rest + 1 / s**2),
        lambda s: 4096 * (rest + 1 / s**2),
        mixing=0.0,
    )


def r4(draw: Draw) -> Truth:
    """Attention over the patches of an image of side r; no parameter is drawn."""

    def tokens(r: float) -> float:
        return (r / 16) ** 2

    return _image(
        lambda b, r: 2e-3 + b * tokens(r) * 2e-6 + b * tokens(r) ** 2 * 4e-8, tokens, mixing=0.02
    )


def r3(draw: Draw) -> Truth:
    """A cubic field of side r."""
    launch, c = draw.launch(), draw.sample() / 4

    def tokens(r: float) -> float:
        return (r / 64) ** 3

    return _image(lambda b, r: launch + c * b * tokens(r), tokens, mixing=0.0)


def w27(draw: Draw) -> Truth:
    """Between a square and a cube."""
    launch, c = draw.launch(), draw.sample() / 6
    return _dense(lambda b, w: launch + c * b * (w / 128) ** 2.7)


def doubling(draw: Draw) -> Truth:
    """Each level doubles the work."""
    launch, c = draw.launch(), draw.sample() / 16
    return _image(lambda b, k: launch + c * b * 2**k, lambda k: 16 * 2**k, mixing=0.0)


LAYERS = 12  # of a model whose first ones are frozen


def frozen(draw: Draw) -> Truth:
    """Layers that are not trained: their backward pass and update fall away, linearly."""
    launch, c, backward = draw.launch(), draw.sample() / LAYERS, draw.between(1, 2.5)

    def work(k: float) -> float:
        return LAYERS + backward * (LAYERS - k)

    return _image(lambda b, k: launch + c * b * work(k), lambda k: 100 * work(k), mixing=0.0)


def sparsity(draw: Draw) -> Truth:
    """What is left to compute, down to where something else takes the time."""
    launch, c, least = draw.launch(), draw.sample() * 2, draw.between(0.01, 0.15)

    def left(k: float) -> float:
        return max(least, 1 - k / 100)

    return _image(lambda b, k: launch + c * b * left(k), lambda k: 1000 * left(k), mixing=0.0)


def added(draw: Draw) -> Truth:
    """So many more layers than there always are; none is one of the values."""
    launch, c, always = draw.launch(), draw.sample() / 8, draw.between(2, 16)

    def layers(k: float) -> float:
        return always + k

    return _image(lambda b, k: launch + c * b * layers(k), lambda k: 100 * layers(k), mixing=0.0)


KINDS: Mapping[str, Kind] = {
    "affine": Kind(draw=affine),
    "waves": Kind(draw=waves),
    "roofline": Kind(draw=roofline),
    "cache": Kind(draw=cache),
    "loader": Kind(draw=loader),
    "attention": Kind(
        draw=attention, knob="context", values=(128, 256, 512, 1024), scales=(1.0, 2.0)
    ),
    "launch": Kind(draw=launch_floor),
    "dispatch": Kind(draw=dispatch),
    "alignment": Kind(
        draw=alignment, values=(72, 136, 264, 520), scales=(0.8, 1.0, 1.3, 1.7), precision="bf16"
    ),
    "algorithm": Kind(draw=algorithm),
    "patch": Kind(draw=patch, knob="patch", values=(8, 16, 24, 32), scales=(1.0,)),
    "stride": Kind(draw=stride, knob="stride", values=(2, 4, 6, 8), scales=(1.0,)),
    "r4": Kind(draw=r4, knob="resolution", values=(128, 224, 304, 384), scales=(1.0,)),
    "r3": Kind(draw=r3, knob="side", values=(32, 64, 96, 128), scales=(1.0, 1.5)),
    "w2.7": Kind(draw=w27),
    "doubling": Kind(
        draw=doubling, knob="level", values=(3, 5, 6, 7), scales=(1.0,), beyond=(2, 9)
    ),
    "frozen": Kind(
        draw=frozen, knob="frozen", values=(2, 4, 6, 8), scales=(1.0,), beyond=(1, LAYERS)
    ),
    "sparsity": Kind(
        draw=sparsity, knob="sparsity", values=(10, 30, 50, 70), scales=(1.0,), beyond=(5, 90)
    ),
    "added": Kind(draw=added, knob="added", values=(0, 4, 8, 16), scales=(1.0,), beyond=(None, 32)),
    "drift": Kind(draw=affine, drift=0.05),
    **{name: Kind(draw=affine, tail=tail) for name, tail in TAILS.items()},
}
