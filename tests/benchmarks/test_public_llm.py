"""The table of language models: what is imported of it, and what each scenario leaves out."""

from __future__ import annotations

import public_llm
import pytest
from comparison.cases import EPOCHCAST
from public_llm import SCENARIOS, measurements

from epochcast.costmodel import summary

A100_FLOPS = 312e12  # a second, bf16; NVIDIA A100 datasheet


def test_every_row_is_imported_with_the_columns_of_its_scenario() -> None:
    for scenario in SCENARIOS:
        known = measurements(scenario)
        assert len(known) == 46
        for m in known:
            assert ("layers" in dict(m.config.sizes)) == ("layers" not in scenario.without)
            assert (m.footprint is not None) == ("flops" not in scenario.without)
            assert m.config.precision == "bf16"


def test_flops_and_times_are_those_that_were_published() -> None:
    """Of the 13B model at 8,192 tokens: 43.95 % of the peak are used, recomputing not counted."""
    wanted = {("width", 5120), ("context", 8192)}
    m = next(m for m in measurements(SCENARIOS[-1]) if wanted <= set(m.config.sizes))
    assert m.footprint is not None
    used = m.footprint.flops * 3 / 4 / summary.step_seconds(m) / A100_FLOPS
    assert used == pytest.approx(0.4395, abs=1e-4)


def test_counts_tell_a_model_of_which_nothing_was_measured() -> None:
    known = measurements(SCENARIOS[-1])
    cases = public_llm.held_out(SCENARIOS[-1], known, width=1536)
    errors = [case.error(EPOCHCAST) for case in cases]
    assert len(errors) == 7
    assert max(e for e in errors if e is not None) < 0.15
