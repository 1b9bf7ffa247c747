"""The table of transferred steps in the documentation is that of the code."""

from __future__ import annotations

import other_device


def test_the_table_is_what_the_code_says_and_nothing_simpler_is_better() -> None:
    found = other_device.evaluate()
    assert other_device.markdown(found) in (other_device.DOCS / "scaling.md").read_text("utf-8")
    everything, *_, probed = found
    for row in (everything, probed):
        assert row["epochcast"] < min(row[name] for name in other_device.METHODS[1:])
        assert 0.85 <= row["in_p05_p95"] <= 0.95
    assert probed["epochcast"] < everything["epochcast"]
