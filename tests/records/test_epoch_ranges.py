"""Ranges of epochs are read as the epochs that they stand for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochcast.records import EpochRange
from epochcast.records.epoch_ranges import EpochSequence, ranges_of

increasing = st.sets(st.integers(1, 80)).map(sorted)


@given(increasing)
def test_ranges_expand_to_what_they_were_made_of(epochs: list[int]) -> None:
    assert list(EpochSequence(ranges_of(epochs))) == epochs


@given(increasing)
def test_a_sequence_answers_as_a_list_does(epochs: list[int]) -> None:
    found = EpochSequence(ranges_of(epochs))
    assert len(found) == len(epochs)
    assert [found[i] for i in range(-len(epochs), len(epochs))] == epochs * 2
    assert (found[:2], found[-3:]) == (tuple(epochs[:2]), tuple(epochs[-3:]))
    for epoch in range(82):
        assert (epoch in found) == (epoch in epochs)
        assert found.until(epoch) == sum(e <= epoch for e in epochs)


def test_what_is_evenly_apart_is_one_range() -> None:
    assert ranges_of(range(2, 10**5, 2)) == (EpochRange(first=2, last=10**5 - 2, every=2),)
    assert ranges_of((5,)) == (EpochRange(first=5, last=5),)
    assert ranges_of(()) == ()
    with pytest.raises(IndexError):
        EpochSequence(ranges_of((5,)))[1]


@pytest.mark.parametrize(
    ("first", "last", "every", "says"),
    [
        (0, 4, 1, "begins at epoch 1"),
        (1, 4, 2, "first \\+ every"),
        (4, 1, 1, "first \\+ every"),
        (1, 4, 0, "at least 1"),
    ],
)
def test_what_is_no_range_is_refused(first: int, last: int, every: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        EpochRange(first=first, last=last, every=every)


def test_ranges_follow_each_other() -> None:
    one, two = EpochRange(first=1, last=5, every=2), EpochRange(first=4, last=6)
    with pytest.raises(ValueError, match="must follow each other"):
        EpochSequence((one, two))
