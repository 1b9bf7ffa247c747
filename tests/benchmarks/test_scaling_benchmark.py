"""The benchmark of many devices: what is promised of its stored result, and its references."""

from __future__ import annotations

import json

import pytest
import scaling

from epochcast.costmodel.scaling import World


def test_the_stored_result_is_what_the_document_promises() -> None:
    found = json.loads(scaling.RESULT.read_text())
    for rows in found.values():
        everything = rows[0]
        assert everything["epochcast"] < min(everything[name] for name in scaling.METHODS[1:])
        assert everything["in_p05_p95"] >= 0.85
    assert found["gavel"][0]["epochcast"] <= 0.08
    assert found["gavel"][0]["in_p05_p95"] <= 0.97
    text = (scaling.DOCS / "scaling.md").read_text()
    assert all(scaling.markdown(rows) in text for rows in found.values())


def test_one_network_of_the_table_is_predicted_again() -> None:
    with scaling.TABLE.open() as file:
        rows = [r for r in scaling.csv.DictReader(file) if r["model"] == "ResNet-50"]
    cases = scaling._of_one_training([r for r in rows if r["gpu"] == "P100"])
    row = scaling._row("", cases)
    assert row["count"] == 16
    assert row["epochcast"] < min(0.1, row["Amdahl's law"], row["linear scaling"])


def test_amdahl_goes_through_one_and_two_devices() -> None:
    assert scaling.amdahl(1, 0.1, 0.15) == pytest.approx(0.1)
    assert scaling.amdahl(2, 0.1, 0.15) == pytest.approx(0.15)
    assert scaling.amdahl(4, 0.1, 0.15) == pytest.approx(0.25)


def test_a_quiet_truth_is_its_equation() -> None:
    truth = scaling.Truth(
        fixed=0.02,
        each=0.001,
        alpha=(0.01, 0.05),
        beta=(0.0, 0.002),
        gamma=1.0,
        ring=False,
        noise=0.0,
        straggling=0.0,
    )
    rng = scaling.np.random.default_rng(0)
    assert truth.step(World(1), 64, rng) == pytest.approx(0.084)
    assert truth.step(World(8, 2), 64, rng) == pytest.approx(0.084 + 0.05 + 0.012)
