"""Features are monomials; matrices hold their values row by row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochcast.costmodel import features as f
from epochcast.records import RunConfig, make_sizes

POSITIVE = st.floats(1e-3, 1e6)


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=5))
def test_matrix_holds_products_of_powers(rows: list[tuple[float, float]]) -> None:
    table = f.tabulate([{"a": a, "b": b} for a, b in rows])
    features = [(), (("a", 1.0),), (("a", 2.0), ("b", 1.0))]
    expected = [[1.0, a, a * a * b] for a, b in rows]
    assert f.matrix(features, table) == pytest.approx(np.array(expected))


def test_only_variables_that_all_rows_share_are_tabulated() -> None:
    assert list(f.tabulate([{"a": 1.0, "b": 2.0}, {"a": 3.0}])) == ["a"]


def test_knob_monomials_are_all_powers_up_to_degree_three() -> None:
    one = f.knob_monomials(["w"])
    assert one == ((), (("w", 1.0),), (("w", 2.0),))
    two = f.knob_monomials(["d", "w"])
    assert (("d", 1.0), ("w", 2.0)) in two
    assert (("d", 2.0), ("w", 2.0)) not in two
    assert len(two) == len(set(two)) == 8


def test_knobs_that_are_no_numbers_are_categories() -> None:
    sizes = make_sizes({"width": 8, "dropout": 0.0, "norm": "layer", "bias": True, "rate": 0.5})
    numbers = {"size.width": 8.0, "size.dropout": 0.0, "size.rate": 0.5}
    assert f.numeric_knobs(sizes) == numbers
    assert dict(f.categories(sizes)) == {"norm": "layer", "bias": True}


def test_variables_without_a_footprint_are_batch_size_and_knobs() -> None:
    config = RunConfig(batch_size=4, sizes=make_sizes({"width": 8}))
    known = f.variables(config, None)
    assert {name: value for name, value in known.items() if "aligned" not in name} == {
        "batch_size": 4.0,
        "padded_batch": 12.0,  # 4·log₂ 8
        "size.width": 8.0,
    }


def test_sizes_are_rounded_up_to_what_kernels_may_work_through() -> None:
    """A width of 200 as 200, 256, 256; a depth of 4 and a rate stay what they are."""
    known = f.knob_variables(make_sizes({"width": 200, "depth": 4, "rate": 0.5}))
    widths = [known[f.aligned_name("size.width", to)] for to in f.ALIGNMENTS]
    assert widths == [200.0, 256.0, 256.0]
    assert {known[f.aligned_name("size.rate", to)] for to in f.ALIGNMENTS} == {0.5}
    assert known[f.aligned_name("size.depth", 8)] == 8.0
    assert known[f.aligned_name("size.depth", 64)] == 4.0
    assert known[f.waste_name(64)] == pytest.approx(1.28)


@pytest.mark.parametrize("knobs", [1, 2, 3, 10, 20])
def test_the_number_of_monomials_stays_small(knobs: int) -> None:
    """All up to the third degree of three knobs; of many knobs each alone, to all its powers."""
    names = [f"size.k{i}" for i in range(knobs)]
    found = f.knob_monomials(names)
    assert len(found) == len(set(found)) <= max(f.MANY, 2 * knobs + 1)
    assert {(), *(((name, 2.0),) for name in names)} <= set(found)
