"""What a plan says beside its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import truths

from epochcast.costmodel.fitting import fit
from epochcast.costmodel.model import CostModel
from epochcast.planning.planner import plan


def few() -> CostModel:
    """One round of two configurations."""
    return fit([truths.measure(batch, 256) for batch in (32, 64)])


def parts_unknown() -> CostModel:
    """As of a table of epochs: nobody timed a start-up, and some runs have a single time."""
    model = few()
    variants = tuple(replace(v, single_times=1, save_seconds=None) for v in model.variants)
    return replace(model, variants=variants, imports=replace(model.imports, median=0.0))


def many() -> CostModel:
    """As it should be."""
    return fit(truths.sweep())


FEW = {"one-round", "few-configurations"}


@pytest.mark.parametrize(
    ("model", "width", "codes"),
    [
        (few, 256, FEW),
        (parts_unknown, 256, FEW | {"not-measured", "fitted-one-time"}),
        (many, 256, set()),
        (many, 100_000, {"far-extrapolation"}),
    ],
)
def test_a_plan_hides_no_warning_of_the_estimate_of_what_it_chose(
    model: Callable[[], CostModel], width: int, codes: set[str]
) -> None:
    found = model()
    planned = plan(found, epochs=2, batch_sizes=(64,), micro_batch=64, sizes={"width": width})
    said = found.predict(epochs=2, batch_size=64, width=width).warnings
    assert {w.code for w in said} == codes
    assert set(said) <= set(planned.warnings)


def test_a_sampler_without_an_end_has_no_epochs_and_that_is_said() -> None:
    long = [replace(truths.measure(batch, 256), samples=10**10) for batch in (32, 64)]
    model, batch = fit(long), {"batch_size": 64, "width": 256}
    planned = plan(model, epochs=1, batch_sizes=(64,), samples=6400)
    assert "endless-epoch" in {w.code for w in model.predict(epochs=1, **batch).warnings}
    assert "endless-epoch" in {w.code for w in plan(model, epochs=1, batch_sizes=64).warnings}
    assert "endless-epoch" not in {w.code for w in planned.warnings}
    for asked in ({"steps": 100}, {"epochs": 1, "samples": 6400}):
        codes = {w.code for w in model.predict(**asked, **batch).warnings}
        assert "endless-epoch" not in codes
