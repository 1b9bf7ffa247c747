"""The table of failing runs: its arithmetic, and one of its rows from fewer runs."""

from __future__ import annotations

import planning
import pytest


def test_a_row_promises_what_runs_keep() -> None:
    row = planning.kept_under_failures(0.14, 6, 900.0, 0.9, runs=4000)
    assert row.promised >= 0.9
    assert row.kept == pytest.approx(row.promised, abs=0.025)


def test_the_table_says_how_far_they_are_apart() -> None:
    rows = [
        planning.Kept(
            spread=spread,
            save=save,
            restart=restart,
            confidence=q,
            epochs=60,
            promised=q,
            kept=q - 0.01 * (save == 6),
        )
        for spread in planning.SPREADS
        for save in planning.SAVES
        for restart in planning.RESTARTS
        for q in planning.CONFIDENCES
    ]
    text = planning.failures_text(rows)
    assert "| 14% | 0.5 MTBF | 120 s | 80.0% → 79.0% | 90.0% → 89.0% | 95.0% → 94.0% |" in text
    assert "At most 1.0 points apart." in text
