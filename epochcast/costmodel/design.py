"""Which configurations to measure: a few that spread, then the one that sharpens the answer most.

candidates      what the user allows: batch sizes × knobs, minus what will not fit
spread          maximin in log features: each is as far as possible from those before it
                (Kennard & Stone 1969, "Computer aided design of experiments")
sharpest        after a fit: where the model is least certain about the question, per second

feature space   log₂ of the counts (FLOPs, bytes, operators, parameters) and of the batch size,
                each divided by its standard deviation over the candidates
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from epochcast.costmodel.features import KNOB_PREFIX, Array, tabulate

SPREAD = ("flops", "bytes_moved", "operators", "parameters", "batch_size")

Variables = Mapping[str, float]


def spread(candidates: Sequence[Variables], count: int, taken: Sequence[int] = ()) -> list[int]:
    """Positions of ``count`` candidates that lie far from each other and from those taken.

    Args:
        candidates: variables of each, with counts where they are known.
        count: how many more to choose; fewer if there are not as many different ones.
        taken: positions chosen before.
    """
    if not candidates:
        return []
    points = feature_space(candidates)
    chosen = list(taken) or [_furthest_from_centre(points)]
    target = min(len(taken) + count, len(candidates))
    while len(chosen) < target:
        distance = np.min([_distances(points, points[i]) for i in chosen], axis=0)
        furthest = int(distance.argmax())
        if distance[furthest] == 0:
            break
        chosen.append(furthest)
    return chosen[len(taken) :]


def feature_space(candidates: Sequence[Variables]) -> Array:
    """Candidates as points, (n, d); what does not vary or was not counted everywhere is left out.

    Without counts the knobs themselves are the features.
    """
    table = {k: v for k, v in tabulate(candidates).items() if np.ptp(v) > 0 and (v > 0).all()}
    counted = [name for name in SPREAD if name in table]
    if "flops" not in counted:
        counted = [n for n in table if n == "batch_size" or n.startswith(KNOB_PREFIX)]
    if not counted:
        return np.zeros((len(candidates), 1))
    logs = np.log2(np.stack([table[name] for name in counted], axis=1))
    return np.asarray((logs - logs.mean(axis=0)) / logs.std(axis=0))


def _furthest_from_centre(points: Array) -> int:
    return int(_distances(points, points.mean(axis=0)).argmax())


def _distances(points: Array, point: Array) -> Array:
    return np.asarray(np.sqrt(((points - point) ** 2).sum(axis=1)))


def sharpest(
    candidates: Sequence[Variables],
    taken: Sequence[int],
    sd_logs: Array,
    asked: Sequence[int],
    seconds: Array,
) -> int | None:
    """The candidate whose measurement would lower the variance of what is asked most per second.

    Measuring c lowers the variance at q by the share that the two have in common, and by no more
    than c is still unknown:

        gain(c) = (1 − max_t k(c, t)²) · Σ_q sd(q)² k(q, c)²        t taken, q asked

    (Cohn 1996, "Neural network exploration using optimal experiment design", with correlations k
    that fall off over one standard deviation of the candidates in feature space.)

    Args:
        sd_logs: of the prediction at every candidate, as far as measuring others lowers it, (n,).
        asked: positions of the configurations that the question is about.
        seconds: that measuring each candidate takes, (n,).

    Returns:
        A position; None where every candidate is taken.
    """
    left = [i for i in range(len(candidates)) if i not in set(taken)]
    if not left:
        return None
    points = feature_space(candidates)
    common = np.stack([np.exp(-(_distances(points, points[i]) ** 2)) for i in left])
    known = common[:, list(taken)].max(axis=1, initial=0.0)
    gain = (1.0 - known) * (common[:, list(asked)] @ (sd_logs[list(asked)] ** 2))
    return left[int((gain / seconds[left]).argmax())]
