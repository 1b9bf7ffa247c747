"""What few configurations tell: FLOPs and bytes rise together, and a host may be the slower."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import truths

from epochcast.costmodel.discrepancy import FEW_SD, UNKNOWN_SD, fit_discrepancy
from epochcast.costmodel.fitting import fit
from epochcast.costmodel.regression import Shape, solve
from epochcast.records import Footprint, Measurement, Quantiles, RunConfig, make_sizes

GPU = replace(truths.DEVICE, kind="cuda")
HOST, PER_FLOP, PER_BYTE, UPDATE = 15e-3, 1 / 4.5e13, 1 / 2.5e12, 1e-3  # as of a GPT on an H200


def counted(batch_size: int, width: int) -> Footprint:
    """Six layers over 256 positions."""
    weights = 6 * 12 * width**2
    flops = 6 * weights * 256 * batch_size
    moved = 850_000 * batch_size * width + 12 * weights
    return replace(
        truths.footprint(batch_size, 1),
        flops=flops,
        aligned_flops=flops,
        bytes_moved=moved,
        operators=231,
        parameters=weights,
        trainable_parameters=weights,
    )


def seconds(batch_size: int, width: int, overlap: float) -> float:
    """A host that runs ahead of its device, mostly or wholly."""
    at = counted(batch_size, width)
    device = PER_FLOP * at.flops + PER_BYTE * at.bytes_moved
    return float(np.linalg.norm([HOST, device], overlap))


def measured(batch_size: int, width: int, overlap: float) -> Measurement:
    steps = (seconds(batch_size, width, overlap) + UPDATE,) * truths.STEPS
    return truths.measure(
        batch_size,
        256,
        config=RunConfig(batch_size=batch_size, sizes=make_sizes({"width": width})),
        device=GPU,
        step_seconds=steps,
        update_seconds=(UPDATE,) * truths.STEPS,
        footprint=counted(batch_size, width),
    )


PROBED = ((16, 192), (32, 192), (32, 768), (128, 768))
ASKED = ((64, 384), (16, 768), (128, 384))


@pytest.mark.parametrize(("overlap", "left_out"), list(product((4, np.inf), (None, *PROBED))))
def test_a_launch_bound_step_beside_a_device_bound_one(
    overlap: float, left_out: tuple[int, int] | None
) -> None:
    """Four configurations hold what is asked between them, and any three of them the fourth."""
    model = fit([measured(*at, overlap) for at in PROBED if at != left_out])
    for batch_size, width in ASKED if left_out is None else (left_out,):
        footprint, truth = counted(batch_size, width), seconds(batch_size, width, overlap) + UPDATE
        asked = {"batch_size": batch_size, "width": width, "footprint": footprint}
        told = model.predict(epochs=1, **asked).step_seconds
        assert told.p05 < truth < told.p95, (batch_size, width)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_an_update_as_long_as_its_launches_is_not_missed_in_the_step(accumulation: int) -> None:
    """Where the device waits for launches its events show an update of 3 ms, else one of 0.2 ms:
    one length for both would leave every step that launches bind too short."""
    known = []
    for batch_size, width in product((8, 32, 128), (192, 384, 768)):
        m, step = measured(batch_size, width, 8), seconds(batch_size, width, 8) + UPDATE
        update = 3e-3 if step < 1.2 * HOST else 2e-4
        config = replace(m.config, accumulation=accumulation)
        shares = (update / accumulation,) * truths.STEPS
        known.append(replace(m, config=config, update_seconds=shares))
    model = fit(known)
    for m in known:
        asked = {"batch_size": m.config.batch_size, "footprint": m.footprint}
        width = dict(m.config.sizes)["width"]
        told = model.predict(epochs=1, accumulation=accumulation, width=width, **asked)
        own = m.step_seconds[0]  # of a micro-step, with its share of the update
        assert told.step_seconds.p50 == pytest.approx(own, rel=0.06)


def test_terms_that_rise_together_share_as_they_are_usual() -> None:
    n = np.arange(1.0, 6.0)
    shape = Shape([[0, 1]], 1.0, np.zeros((2, 0)), np.array([0.01, 0.02]))
    beta = solve(np.column_stack([n, n]), np.zeros((5, 0)), n, shape).beta
    assert beta[0] / beta[1] == pytest.approx(4.0)  # λ², as of the posterior of two normal shares
    assert beta.sum() == pytest.approx(1.0, abs=1e-4)


def test_three_configurations_of_several_models_are_no_line() -> None:
    one = np.array([[4.0, 7.0], [5.0, 7.0], [6.0, 7.0]])
    several = np.array([[4.0, 7.0], [5.0, 7.0], [6.0, 9.0]])
    assert fit_discrepancy(one, np.ones((3, 1)), np.zeros(3)).scale < FEW_SD
    assert fit_discrepancy(several, np.ones((3, 1)), np.zeros(3)).scale == UNKNOWN_SD


# -- beyond the largest batch of one model --------------------------------------------------------

SAMPLES = 2**16


def told_beyond(step: Callable[[float], float], batches: Sequence[int], asked: int) -> Quantiles:
    """Two rounds of one model without counts, 1 % apart."""
    known = [
        Measurement.from_epochs(
            "beyond",
            batch,
            epoch_seconds=[step(batch) * SAMPLES / batch * (1 + round_ / 100)] * 2,
            samples=SAMPLES,
            device="NVIDIA A100 (cuda)",
            run=round_,
            includes_first=False,
        )
        for round_, batch in product(range(2), batches)
    ]
    return fit(known).predict(epochs=1, batch_size=asked).step_seconds


@pytest.mark.parametrize("power", [0.8, 1.0, 1.3, 2.0])
def test_four_batches_show_a_power_of_the_batch(power: float) -> None:
    q = told_beyond(lambda b: 3e-3 + 2e-5 * b**power, (32, 64, 128, 256), 1024)
    assert q.p05 < 3e-3 + 2e-5 * 1024**power < q.p95
    assert q.p50 == pytest.approx(3e-3 + 2e-5 * 1024**power, rel=0.05)


@pytest.mark.parametrize(
    ("batches", "asked"), list(product([(32, 64, 256), (16, 32, 64, 256)], [512, 16384]))
)
def test_launches_that_hide_the_batch_may_end_right_beyond_it(
    batches: tuple[int, ...], asked: int
) -> None:
    """Flat up to 256 and in proportion from there on: held at twice and at 64 times the range; and
    no interval reaches beyond growth with the square of that, either way."""
    q = told_beyond(lambda b: 6e-3 * max(1.0, b / 256), batches, asked)
    assert q.p95 > 0.99 * 6e-3 * asked / 256
    assert q.p95 / q.p50 < 10 * (asked / 256) ** 2


def test_batches_that_show_are_not_doubted() -> None:
    q = told_beyond(lambda b: 3e-3 + 2e-4 * b, (32, 64, 256), 512)
    assert q.p95 / q.p05 < 1.4
