"""What other tools would predict from the same measurements. Plain functions of a few numbers.

    nearest            the nearest probed configuration; for time, its samples per second
    line               a straight line through the batch sizes of one model size, for time and for
                       memory: DeepView (Yu et al. 2020, "Skyline: interactive in-editor
                       computational performance profiling for deep neural network training")
    counts_nnls        non-negative least squares on relative error over what a dry run counts:
                       1, FLOPs, bytes, operators, parameters, samples
    log_linear         least squares, log y on the logs of batch size and knobs
    gaussian_process   of log y over the same logs, one length scale for each
    first_epoch        carbontracker (Anthony et al. 2020, "Carbontracker: tracking and predicting
                       the carbon footprint of training deep learning models"): epochs × the mean of
                       those monitored, by default the first alone, its slow first steps included

A method that cannot answer says None.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, exp, log
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import nnls

from epochcast.costmodel import summary
from epochcast.costmodel.features import numeric_knobs
from epochcast.records import Footprint, Measurement, Quantiles, RunConfig

if TYPE_CHECKING:
    from sklearn.gaussian_process import GaussianProcessRegressor

REACH = {0.05: -1.645, 0.10: -1.282, 0.90: 1.282, 0.95: 1.645}  # quantiles of a normal


@dataclass(frozen=True, slots=True)
class Known:
    """A quantity, seconds or bytes, as measured in one configuration."""

    config: RunConfig
    value: float


def constant_throughput(known: Sequence[Known], asked: RunConfig) -> float:
    """Seconds of a step at the samples per second of the nearest probed configuration."""
    near = _nearest(known, asked)
    return near.value * asked.batch_size / near.config.batch_size


def nearest(known: Sequence[Known], asked: RunConfig) -> float:
    """What was measured in the nearest probed configuration."""
    return _nearest(known, asked).value


def line(known: Sequence[Known], asked: RunConfig) -> float | None:
    """A straight line through the batch sizes of the model size asked for, if it was probed."""
    same = [k for k in known if k.config.sizes == asked.sizes]
    if len({k.config.batch_size for k in same}) < 2:
        return None
    slope, base = np.polyfit([k.config.batch_size for k in same], [k.value for k in same], 1)
    return float(base + slope * asked.batch_size)


def counts_nnls(
    known: Sequence[Known], asked: RunConfig, counted: Mapping[RunConfig, Footprint]
) -> float:
    """Seconds of a step as one sum of physical terms, without anything else.

    Args:
        known: what was measured.
        asked: the configuration to predict.
        counted: dry runs of all of these.
    """
    rows, y = [_terms(k.config, counted[k.config]) for k in known], [k.value for k in known]
    relative = np.array(rows) / np.array(y)[:, None]
    scale = relative.max(axis=0)
    solution, _ = nnls(relative / scale, np.ones(len(y)))
    return float(_terms(asked, counted[asked]) @ (solution / scale))


def _terms(config: RunConfig, counts: Footprint) -> np.ndarray:
    terms = (1, counts.flops, counts.bytes_moved, counts.operators, counts.parameters)
    return np.array([*terms, config.batch_size], dtype=float)


def log_linear(known: Sequence[Known], asked: RunConfig) -> float:
    """A power law in batch size and knobs."""
    from sklearn.linear_model import LinearRegression

    x, y, at = _logs(known, asked)
    return exp(float(LinearRegression().fit(x, y).predict(at)[0]))


def gaussian_process(known: Sequence[Known], asked: RunConfig) -> Quantiles:
    """As scikit-learn does it, with its own search for length scales and noise."""
    _, _, at = _logs(known, asked)
    mean, sd = _process(tuple(known)).predict(at, return_std=True)
    p05, p10, p90, p95 = (exp(float(mean[0] + z * sd[0])) for z in REACH.values())
    return Quantiles(p05=p05, p10=p10, p50=exp(float(mean[0])), p90=p90, p95=p95)


@cache
def _process(known: tuple[Known, ...]) -> GaussianProcessRegressor:
    """Fitted once for all that is asked of the same measurements."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    x, y, _ = _logs(known, known[0].config)
    kernel = ConstantKernel() * RBF(np.ones(x.shape[1])) + WhiteKernel(1e-3)
    process = GaussianProcessRegressor(
        kernel, normalize_y=True, n_restarts_optimizer=2, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # length scales at their bounds
        return process.fit(x, y)


def first_epoch(trials: Sequence[Measurement]) -> float:
    """Seconds of a mean step of the first epoch of the very configuration asked for."""
    steps = ceil(trials[0].samples / trials[0].config.batch_size)
    return median(summary.step_seconds(m) + summary.first_steps_seconds(m) / steps for m in trials)


def _nearest(known: Sequence[Known], asked: RunConfig) -> Known:
    def distance(k: Known) -> tuple[float, int]:
        here, there = _place(k.config), _place(asked)
        gaps = [abs(a - b) for a, b in zip(here, there, strict=True)]
        return round(sum(gaps), 9), -k.config.batch_size  # of two equally near the larger

    return min(known, key=distance)


def _place(config: RunConfig) -> list[float]:
    return [log(config.batch_size), *(log(v) for v in numeric_knobs(config.sizes).values())]


def _logs(known: Sequence[Known], asked: RunConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardized logs of what varies (n, p), log values (n,), and the place asked for (1, p)."""
    x = np.array([_place(k.config) for k in known])
    spread = x.std(axis=0)
    kept = spread > 0
    middle, scale = x.mean(axis=0)[kept], spread[kept]
    at = (np.array([_place(asked)])[:, kept] - middle) / scale
    return (x[:, kept] - middle) / scale, np.log([k.value for k in known]), at
