"""Learning curves: families fitted robustly, averaged, extrapolated; and what they show.

    x   epochs       y   the metric, smaller is better (scores are negated)

    pow3          y = c + a·x^(−α)
    pow4          y = c + (a·x + b)^(−α)
    mmf           y = c + (d − c)/(1 + (κ·x)^δ)                Morgan–Mercer–Flodin
    exponential   y = c + a·e^(−b·x)

pow3, pow4 and mmf are those of Domhan, Springenberg & Hutter 2015 (IJCAI), written for losses. All
are fitted by least squares with a soft L1 loss, so that single spikes count little; their
average has weights exp(−½·BIC), which punishes parameters, and its variance at an epoch is that
of the fits plus that between the families (Hoeting et al. 1999, equation 3):

    var y(x) = Σ_k w_k·(s_k²(x) + (y_k(x) − ȳ(x))²) + σ²         σ: scatter of single checks

All of them fall for ever. A curve that has turned is a sum of something that falls and something
that goes on rising:

    y = c + a·f(x) + b·r(x),  b ≥ 0          f: e^(−βx), x^(−α)     r: ln x, √x, x

A shape is one f with its rate and one r; of each, c, a and b are a linear fit in closed form.
Shapes are averaged with weights RSS^(−n/2), which is exp(−½·BIC) as all have as many parameters.
What they are expected to miss is that a rise may become slower or faster: a share of what is
still to come.

    X   c, f and r at each check, of each shape  (shapes, n, 3)     p   c, a, b  (shapes, 3)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import exp, log, pi, sqrt
from statistics import NormalDist

import numpy as np
from scipy.optimize import least_squares

from epochcast.costmodel.features import Array
from epochcast.costmodel.scatter import student_t_quantile
from epochcast.errors import UsageError
from epochcast.records import LearningCurve, Mode, Outlook, Quantiles
from epochcast.records.estimate import LEVELS
from epochcast.records.plan import Fit

Function = Callable[[Array, Array], Array]

FEWEST_CHECKS = 5  # of a curve that can be extrapolated: one more than the largest family needs
LARGEST = 1e100  # of a value: its square is a number
FEW_CHECKS = 3  # a median of three is not moved by one
LATE_SHARE = 1 / 3  # of the checks seen: where a trend is read off
NOISES = 2.0  # standard deviations that a change must exceed to be one
FALSE_ALARMS = 0.05  # at most, of curves that show only noise: under 1 % in simulations
SMALLEST_CHANGE = 0.01  # of the curve's whole range: less than that is flat
EPSILON = 1e-12  # of the curve's size: means of three equal numbers differ by less
STEPS = 60  # evaluations in a family's fit: it has converged, or another one fits better
DIFFERENCE = 1e-5  # of a parameter, for derivatives; parameters are of order one
LEAST_SPREAD = 1e-3  # of a curve's range: without noise, nothing is a spike
MAD_TO_SD = 1.4826 / 2**0.5  # of first differences of independent normal noise


@dataclass(frozen=True, slots=True)
class Family:
    """A curve on the unit square; every parameter but the limit c is a logarithm."""

    function: Function
    starts: tuple[tuple[float, ...], ...]


def _pow3(x: Array, p: Array) -> Array:
    return np.asarray(p[0] + np.exp(p[1] - np.exp(p[2]) * np.log(x)))


def _pow4(x: Array, p: Array) -> Array:
    return np.asarray(p[0] + (np.exp(p[1]) * x + np.exp(p[2])) ** -np.exp(p[3]))


def _mmf(x: Array, p: Array) -> Array:
    return np.asarray(p[0] + np.exp(p[1]) / (1 + np.exp(np.exp(p[3]) * (p[2] + np.log(x)))))


def _exponential(x: Array, p: Array) -> Array:
    return np.asarray(p[0] + np.exp(p[1] - np.exp(p[2]) * x))


FAMILIES = {
    "pow3": Family(_pow3, ((0.0, -2.0, -0.7), (-0.5, -0.7, -1.5))),
    "pow4": Family(_pow4, ((0.0, 2.0, 0.0, 0.0), (-0.5, 1.0, -1.0, -1.0))),
    "mmf": Family(_mmf, ((0.0, 0.3, 2.0, 0.0), (-0.3, 0.5, 0.5, -0.5))),
    "exponential": Family(_exponential, ((0.0, 0.0, 1.5), (-0.3, 0.0, 0.0))),
}
REACH = 12.0  # of a logarithm of a parameter: e^12 of the curve's own scale is everything
FARTHEST = 1e6  # times the curve's range: as good as infinite, and its square is a number
RATES = 40  # of a fall: neighbours differ less than noise
FALLS = {
    "exponential": np.geomspace(0.3, 60, RATES),  # β, where the curve seen ends at x = 1
    "power": np.geomspace(0.05, 4, RATES),  # α
}
# a square, taken for the bend of a minimum, goes far too high.
RISES = ("log", "root", "line")
UNKNOWN_SHARE = 0.3  # of a rise to come; P05–P95 then holds simulated truths (docs/planning.md)
REWEIGHTINGS = 3  # of weighing checks by how far off they are: weights settle to a few per cent
RIDGE = 1e-9  # of a column's square, which is about one

SHARE_OF_CURVE = 1 / 6  # on either side of a check that its smoothed value is taken from


@dataclass(frozen=True, slots=True)
class FittedRise:
    """All shapes on one curve on the unit square.

    Attributes:
        first: the first x, which the logarithm counts from.
        parameters: (shapes, 3).
        covariances: (shapes, 3, 3).
        weights: in the average (shapes,); they sum to one.
    """

    first: float
    parameters: Array
    covariances: Array
    weights: Array

    def mean_and_variance(self, x: Array) -> tuple[Array, Array]:
        """Of the curve at each x, without noise."""
        X = _columns(np.append(x, 1.0), self.first)
        values = np.einsum("gnk,gk->gn", X, self.parameters)
        own = np.einsum("gni,gij,gnj->gn", X, self.covariances, X)
        mean = self.weights @ values
        variance = self.weights @ (own + (values - mean) ** 2)
        to_come = np.where(x > 1, mean[:-1] - mean[-1], 0.0)
        return mean[:-1], variance[:-1] + (UNKNOWN_SHARE * to_come) ** 2

    def named_weights(self) -> tuple[tuple[str, float], ...]:
        """Of each kind of fall and rise."""
        names = [f"{fall} + {rise}" for fall in FALLS for rise in RISES]
        return tuple(zip(names, self.weights.reshape(-1, RATES).sum(axis=1).tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class FittedFamily:
    """One family on one curve: parameters (p,), their covariance (p, p), weight in the average."""

    name: str
    parameters: Array
    covariance: Array
    bic: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class FittedCurve:
    """A curve's average over families; methods speak in the metric's own unit and direction.

    Attributes:
        seen: the curve itself.
        noise: standard deviation of single checks.
        last_offset: how far the last checks lie from the average, which persists.
        rise: what takes the families' place where the curve has turned.
    """

    seen: LearningCurve
    mode: Mode
    scale: tuple[float, float, float]  # longest x, lowest y, range of y
    families: tuple[FittedFamily, ...]
    noise: float
    last_offset: float
    rise: FittedRise | None = None

    def mean_and_sd(self, epochs: Array) -> tuple[Array, Array]:
        """Of the metric at each epoch, where smaller is better, a single check's noise included."""
        x = np.maximum(epochs, 1e-9) / self.scale[0]
        mean, variance = self.rise.mean_and_variance(x) if self.rise else self._falling(x)
        _, low, height = self.scale
        sd = np.sqrt(variance * height**2 + self.noise**2)
        return low + height * mean + self.last_offset, sd

    def _falling(self, x: Array) -> tuple[Array, Array]:
        """Mean and variance of the families' average on the unit square."""
        weights = np.array([f.weight for f in self.families])
        values = np.stack([_values(f.name, x, f.parameters) for f in self.families])
        own = np.stack([_variance(f, x) for f in self.families])
        mean = weights @ values
        return mean, weights @ (own + (values - mean) ** 2)

    def improvement_probability(self, epoch: float, min_delta: float = 0.0) -> float:
        """That the metric at an epoch beats the best one seen by ``min_delta``."""
        best = float(_oriented(self.seen.validation, self.mode).min())
        mean, sd = self.mean_and_sd(np.array([epoch]))
        if sd[0] == 0:
            return float(mean[0] < best - min_delta)
        return NormalDist().cdf((best - min_delta - float(mean[0])) / float(sd[0]))

    def value_quantiles(self, epoch: float) -> Quantiles:
        """Of the metric at an epoch, in its own direction."""
        mean, sd = (float(a[0]) for a in self.mean_and_sd(np.array([epoch])))
        sign = 1.0 if self.mode == "min" else -1.0
        return Quantiles.of(sign * mean + NormalDist().inv_cdf(p) * sd for p in LEVELS)

    def named_weights(self) -> tuple[tuple[str, float], ...]:
        """Of what is averaged."""
        if self.rise:
            return self.rise.named_weights()
        return tuple((f.name, f.weight) for f in self.families)

    def _without_noise(self) -> Array:
        """The curve seen: the average of families, and what it misses, smoothed."""
        mean, _ = self.mean_and_sd(np.asarray(self.seen.epochs, dtype=float))
        missed = _oriented(self.seen.validation, self.mode) - mean
        return np.asarray(mean + _local_lines(missed))

    def sample(self, epochs: Array, count: int, random: np.random.Generator) -> Array:
        """Possible curves of another run, in the metric's own direction, shape (count, epochs).

        Where the curve was seen, it is that curve with other noise instead of its own; beyond, the
        average with its error, which one run has in common at all epochs.

        Args:
            epochs: where to evaluate the curves, one axis; fractions of an epoch are allowed.
            count: of the curves.
            random: where the draws come from; the same state gives the same curves.
        """
        mean, sd = self.mean_and_sd(epochs)
        known = np.interp(epochs, self.seen.epochs, self._without_noise())
        inside = epochs <= self.seen.epochs[-1]
        drift = np.sqrt(np.maximum(sd**2 - self.noise**2, 0.0)) * ~inside
        shared = random.standard_normal((count, 1))
        own = random.standard_normal((count, len(epochs)))
        curves = np.where(inside, known, mean) + shared * drift + own * self.noise
        return np.asarray(curves if self.mode == "min" else -curves)


def fit_curve(curve: LearningCurve, mode: Mode = "min") -> FittedCurve:
    """Fit all families to a curve's validation values and weigh them.

    Raises:
        UsageError: too few checks, or values that are not finite.
    """
    y = _oriented(curve.validation, mode)
    if np.isfinite(y).all() and np.abs(y).max() > LARGEST:
        raise UsageError(
            f"a learning curve needs values of at most {LARGEST:g}, but got {np.abs(y).max():g}: "
            "leave out what came after the run diverged"
        )
    if len(y) < FEWEST_CHECKS or not np.isfinite(y).all():
        raise UsageError(
            f"a learning curve needs at least {FEWEST_CHECKS} finite values, but got {len(y)} "
            f"({int(np.isfinite(y).sum())} finite)"
        )
    x = np.maximum(np.asarray(curve.epochs, dtype=float), 1e-9)
    low, height = float(y.min()), float(np.ptp(y))
    unit_x, unit_y = x / x[-1], (y - low) / (height or 1.0)
    rough = max(_noise(unit_y), LEAST_SPREAD)
    families = _weighed([_fit_family(name, unit_x, unit_y, rough) for name in FAMILIES])
    mean = sum(f.weight * _values(f.name, unit_x, f.parameters) for f in families)
    noise, offset = _noise_and_offset(unit_y - mean)
    fitted = FittedCurve(
        seen=curve,
        mode=mode,
        scale=(float(x[-1]), low, height),
        families=families,
        noise=noise * height,
        last_offset=offset * height,
    )
    if _lowest_before_rise(fitted) is None:
        return fitted
    return _turned(fitted, unit_x, unit_y)


def fit_rise(x: Array, y: Array, noise: float) -> FittedRise | None:
    """All shapes fitted to a curve on the unit square; None if none of them rises.

    Args:
        x: epochs as shares of the last one seen, (n,), rising to 1.
        y: values from 0, the lowest seen, to 1, the highest, (n,); smaller is better.
        noise: standard deviation of y from check to check; what lies further off counts less.
    """
    X, n = _columns(x, x[0]), len(x)
    trust = np.ones(n)
    for _ in range(REWEIGHTINGS):
        weighted = X * trust[:, None]
        inverse = np.linalg.inv(np.einsum("gni,gnj->gij", weighted, X) + n * RIDGE * np.eye(3))
        p = np.einsum("gij,gnj,n->gi", inverse, weighted, y)
        values = np.einsum("gnk,gk->gn", X, p)
        rss = np.maximum(((values - y) ** 2) @ trust, n * RIDGE)
        rises = p[:, 2] > 0
        if not rises.any():
            return None
        weights = np.where(rises, (rss / rss[rises].min()) ** (-n / 2), 0.0)
        weights /= weights.sum()
        trust = 1 / np.sqrt(1 + ((y - weights @ values) / noise) ** 2)  # soft L1
    variance = rss / max(1, n - 3)
    return FittedRise(float(x[0]), p, variance[:, None, None] * inverse, weights)


def _columns(x: Array, first: float) -> Array:
    """X, scaled so that a fall begins at one and a rise is one where the curve seen ends."""
    falls = np.concatenate(
        [
            np.exp(-np.outer(FALLS["exponential"], x - first)),
            np.exp(-np.outer(FALLS["power"], np.log(x / first))),
        ]
    ).reshape(len(FALLS), 1, RATES, len(x))
    log = np.log(x / first) / -np.log(first)
    rises = np.stack([log, np.sqrt(x), x])[None, :, None]
    shape = np.broadcast_shapes(falls.shape, rises.shape)
    columns = [np.broadcast_to(column, shape) for column in (np.ones(1), falls, rises)]
    return np.stack(columns, axis=-1).reshape(-1, len(x), 3)


def seen_until(fitted: FittedCurve, epoch: float) -> FittedCurve | None:
    """The curve as if the run had ended there; None where too few checks came before."""
    seen = fitted.seen
    if seen.epochs[-1] <= epoch:
        return fitted
    count = bisect_right(seen.epochs, epoch)
    if count < FEWEST_CHECKS:
        return None
    cut = LearningCurve(
        epochs=seen.epochs[:count],
        validation=seen.validation[:count],
        training=seen.training[:count],
    )
    return fit_curve(cut, fitted.mode)


def _turned(fitted: FittedCurve, x: Array, y: Array) -> FittedCurve:
    """The same with a rise, as the curve on the unit square shows it."""
    rise = fit_rise(x, y, max(_noise(y), LEAST_SPREAD))
    if rise is None:
        return fitted
    noise, offset = (
        s * fitted.scale[2] for s in _noise_and_offset(y - rise.mean_and_variance(x)[0])
    )
    return replace(fitted, rise=rise, noise=noise, last_offset=offset)


def _noise_and_offset(missed: Array) -> tuple[float, float]:
    """Scatter of single checks around an average, and what their last ones miss beyond that."""
    noise = _noise(missed)  # not of the checks themselves: a steep beginning bends
    offset = float(np.median(missed[-FEW_CHECKS:]))
    explained = abs(offset) <= NOISES * noise / FEW_CHECKS**0.5
    return noise, 0.0 if explained else offset


def _oriented(values: Sequence[float], mode: Mode) -> Array:
    y = np.asarray(values, dtype=float)
    return y if mode == "min" else -y


def _noise(y: Array) -> float:
    """Scatter of single checks, from second differences: a trend does not count as noise."""
    bends = np.diff(y, n=2) / 3**0.5  # var of y₁ − 2y₂ + y₃ is 6σ², that of a difference is 2σ²
    return float(np.median(np.abs(bends)) * MAD_TO_SD)


def _local_lines(y: Array) -> Array:
    """At each check, the line through its neighbours: LOESS (Cleveland 1979, JASA 74)."""
    reach = max(2, round(SHARE_OF_CURVE * len(y)))
    steps = np.arange(-reach, reach + 1)
    weights = (1 - np.abs(steps / (reach + 1)) ** 3) ** 3
    s0, s1, s2 = (np.convolve(np.ones(len(y)), weights * steps**k, "same") for k in range(3))
    t0, t1 = (np.convolve(y, weights * steps**k, "same") for k in range(2))
    return np.asarray((s2 * t0 - s1 * t1) / (s0 * s2 - s1**2))


def _values(name: str, x: Array, parameters: Array) -> Array:
    """A family on the unit square, within what can be reckoned with."""
    with np.errstate(over="ignore"):
        values = FAMILIES[name].function(x, parameters)
    return np.clip(values, -FARTHEST, FARTHEST)


def _fit_family(name: str, x: Array, y: Array, spread: float) -> FittedFamily:
    """The best of its starts; residuals beyond ``spread`` count less (soft L1)."""

    def residuals(p: Array) -> Array:
        return _values(name, x, p) - y

    fits = [
        least_squares(
            residuals,
            start,
            jac=lambda p: _jacobian(residuals, p),
            bounds=(-REACH, REACH),
            loss="soft_l1",
            f_scale=spread,
            max_nfev=STEPS,
        )
        for start in FAMILIES[name].starts
    ]
    best = min(fits, key=lambda fit: fit.cost)
    n, count = len(x), len(best.x)
    bend = (1 + (residuals(best.x) / spread) ** 2) ** -1.5  # second derivative of the loss
    J = _jacobian(residuals, best.x)
    variance = max(2 * best.cost / max(1, n - count), 1e-12)  # cost is ½Σρ: a robust RSS
    covariance = np.asarray(variance * np.linalg.pinv((J.T * bend) @ J, rcond=1e-8), dtype=float)
    bic = n * log(max(2 * best.cost / n, 1e-12)) + count * log(n)
    return FittedFamily(name, best.x, covariance, bic)


def _jacobian(function: Callable[[Array], Array], p: Array) -> Array:
    """∂function/∂p (n, k) by central differences, all in one call."""
    steps = np.eye(len(p)) * DIFFERENCE
    above, below = function(np.stack([p + steps, p - steps]).transpose(2, 0, 1)[..., None])
    return np.asarray((above - below).T / (2 * DIFFERENCE))


def _weighed(fitted: Sequence[FittedFamily]) -> tuple[FittedFamily, ...]:
    lowest = min(f.bic for f in fitted)
    raw = [exp(-(f.bic - lowest) / 2) for f in fitted]
    return tuple(
        FittedFamily(f.name, f.parameters, f.covariance, f.bic, weight / sum(raw))
        for f, weight in zip(fitted, raw, strict=True)
    )


def _variance(fitted: FittedFamily, x: Array) -> Array:
    """gᵀ Cov g with the gradient g (the delta method)."""
    gradient = _jacobian(lambda p: _values(fitted.name, x, p), fitted.parameters)
    return np.asarray(np.einsum("xi,ij,xj->x", gradient, fitted.covariance, gradient))


# -- what a curve shows -------------------------------------------------------------------------


def outlook(fitted: FittedCurve, horizon: float, min_delta: float = 0.0) -> Outlook:
    """What a curve promises for a longer run.

    Args:
        fitted: the curve, as far as it was seen, with its extrapolation.
        horizon: the run's last epoch.
        min_delta: the least improvement on the best value seen that counts, in the metric's unit.
    """
    y = _oriented(fitted.seen.validation, fitted.mode)
    best, turned = int(np.argmin(y)), turning_point(fitted)
    return Outlook(
        mode=fitted.mode,
        families=fitted.named_weights(),
        seen_epochs=fitted.seen.epochs[-1],
        best_value=fitted.seen.validation[best],
        best_epoch=fitted.seen.epochs[best],
        final_value=fitted.value_quantiles(horizon),
        min_delta=min_delta,
        improve_probability=fitted.improvement_probability(horizon, min_delta),
        fit=_fit(fitted, y, turned),
        turning_epoch=turned,
    )


def _fit(fitted: FittedCurve, y: Array, turned: float | None) -> Fit:
    """In one word, what validation ``y`` shows, and training where it is known."""
    if turned is None:
        return "underfitting" if _still_falling(y, fitted.noise) else "settled"
    training = _oriented(fitted.seen.training, fitted.mode)
    rises = len(training) and training[-1] >= training[fitted.seen.epochs.index(turned)]
    return "diverging" if rises else "overfitting"


def turning_point(fitted: FittedCurve) -> float | None:
    """The epoch of the best validation value, if it has risen since."""
    best = _lowest_before_rise(fitted)
    return None if best is None else fitted.seen.epochs[best]


def _lowest_before_rise(fitted: FittedCurve) -> int | None:
    """Position of the best validation value, if it has risen since.

    The rise is that of the late checks' median above the lowest mean of three: more than noise
    would show, the lowest being the lowest of many.
    """
    y = _oriented(fitted.seen.validation, fitted.mode)
    found = _risen_since(y, fitted.noise)
    if found is None and y.min() > 0:  # what grows by a factor looks like noise, but for its log
        y = np.log(y)
        found = _risen_since(y, _noise(y))
    return found


def _risen_since(y: Array, noise: float) -> int | None:
    """Position of the lowest value, if the late ones lie above it by more than chance."""
    smooth = _smooth(y)
    best = int(np.argmin(smooth))
    late = y[best + 1 :][-max(FEW_CHECKS, round(LATE_SHARE * len(y))) :]
    if len(late) < FEW_CHECKS:
        return None
    risen = float(np.median(late) - smooth[best])
    return best if risen > _largest_by_chance(y, len(late), noise) else None


def _largest_by_chance(y: Array, late: int, noise: float) -> float:
    """How far noise alone puts a late median above the lowest mean; rarely more (Bonferroni).

    The noise is an estimate from few checks, hence Student's quantile.
    """
    bends = np.diff(y[len(y) // 3 :], n=2)  # without the steep beginning
    scatter = max(noise, float(np.sqrt(np.mean(bends**2) / 6)) if len(bends) else 0.0)
    sd = scatter * sqrt(5 / 9 + pi / 2 / late)  # of a mean of three at an end, and of a median
    reach = student_t_quantile(1 - FALSE_ALARMS / len(y), max(1.0, float(len(bends))))
    return max(reach * sd, _flat(y))


def _flat(y: Array) -> float:
    """A change that is none: of the curve's range, or of its rounding where it is constant."""
    return max(SMALLEST_CHANGE * float(np.ptp(y)), EPSILON * float(np.abs(y).max()))


def _still_falling(y: Array, noise: float) -> bool:
    late = max(2, round(LATE_SHARE * len(y)))
    smooth = _smooth(y)
    return float(smooth[-late] - smooth[-1]) > _smallest_change(y, noise)


def _smallest_change(y: Array, noise: float) -> float:
    return max(NOISES * noise / 3**0.5, _flat(y))


def _smooth(y: Array) -> Array:
    """Means of three; the ends by themselves and their neighbour."""
    padded = np.concatenate((y[:1], y, y[-1:]))
    return np.asarray((padded[:-2] + padded[1:-1] + padded[2:]) / 3)
