"""Cases to scores: one for each method, over the cases of one quantity and one split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean

from comparison.cases import EPOCHCAST, NOISE, QUANTITIES, Case
from comparison.scores import coverage, errors, under_estimates
from comparison.splits import SPLITS
from epochcast.records import Quantiles

COMPARED = ("median", "p90", "max")  # in which one method can be ahead of another


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How far one method was from what was measured, relatively.

    Attributes:
        count: of cases that it answered.
        p10_p90: share of single values inside its interval; None without intervals.
        p05_p95: likewise.
        under_p95: share of single values above its P95.
        probing_seconds: of what was fitted on, the mean over model sizes.
        over_noise: its median in medians of the same measured again.
    """

    quantity: str
    split: str
    method: str
    count: int
    mean: float
    median: float
    p90: float
    max: float
    p10_p90: float | None
    p05_p95: float | None
    under_p95: float | None
    probing_seconds: float
    over_noise: float | None = None

    @property
    def where(self) -> tuple[str, str]:
        """Scores with the same quantity and split can be compared."""
        return self.quantity, self.split


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """A method that is better than epochcast in something."""

    score: Score
    ours: Score
    better: tuple[str, ...]


def all_scores(cases: Sequence[Case]) -> list[Score]:
    """For each quantity, split and method: errors, coverage, under-estimates, cost."""
    return [
        score
        for where in ((quantity, split) for quantity in QUANTITIES for split in SPLITS)
        for score in scores_of([c for c in cases if (c.quantity, c.split) == where])
    ]


def scores_of(cases: Sequence[Case]) -> list[Score]:
    """One score per method, of cases of one quantity and split; the noise comes first."""
    answering = dict.fromkeys(method for case in cases for method in case.answers)
    methods = sorted(answering, key=lambda method: method != NOISE)
    found = [score for method in methods if (score := score_of(cases, method))]
    floor = next((score.median for score in found if score.method == NOISE), 0.0)
    return [replace(s, over_noise=s.median / floor if floor else None) for s in found]


def score_of(cases: Sequence[Case], method: str) -> Score | None:
    """Of one method; None where it answers none of the cases."""
    found = errors(e for case in cases if (e := case.error(method)) is not None)
    if found is None:
        return None
    pairs = [
        (answer, value)
        for case in cases
        if isinstance(answer := case.answers.get(method), Quantiles)
        for value in case.later
    ]
    probing = {(c.workload, c.config.sizes): c.probing_seconds for c in cases}
    return Score(
        quantity=cases[0].quantity,
        split=cases[0].split,
        method=method,
        **asdict(found),
        p10_p90=coverage(pairs, "p10", "p90"),
        p05_p95=coverage(pairs, "p05", "p95"),
        under_p95=under_estimates(pairs),
        probing_seconds=fmean(probing.values()),
    )


def ahead(scores: Sequence[Score]) -> Iterator[Ahead]:
    """Methods with a smaller median, P90 or maximum than epochcast's own."""
    for ours in (score for score in scores if score.method == EPOCHCAST):
        for score in (s for s in scores if s.where == ours.where and is_other(s)):
            if better := tuple(m for m in COMPARED if getattr(score, m) < getattr(ours, m)):
                yield Ahead(score=score, ours=ours, better=better)


def is_other(score: Score) -> bool:
    """Whether it is somebody else's method, and neither ours nor the noise."""
    return not score.method.startswith((EPOCHCAST, NOISE))
