"""Times since the start are not times of epochs, and the other way round."""

from itertools import accumulate, pairwise
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochcast.errors import EpochcastError
from epochcast.importers import runs
from epochcast.importers.columns import ImportOptions

EPOCHS = (60.1, 58.8, 59.3, 58.9)


def read(times, name: str = "epoch_time", epochs=None, **said) -> runs.Imported:
    numbers = epochs or range(1, len(times) + 1)
    rows = "".join(f"50,{n},{seconds!r}\n" for n, seconds in zip(numbers, times, strict=True))
    options = ImportOptions(workload="cnn", device="A100", samples=50, **said)
    return runs.read(f"bs,epoch,{name}\n{rows}", options)


def steady(found: runs.Imported) -> tuple[float, ...]:
    (m,) = found.measurements
    return m.step_seconds  # a step is an epoch here


@pytest.mark.parametrize("name", ["epoch_time", "time", "elapsed", "runtime", "total_time_s"])
def test_times_that_only_rise_are_differenced_and_said(name: str) -> None:
    found = read(tuple(accumulate(EPOCHS)), name)
    assert steady(found) == pytest.approx(EPOCHS[1:])
    (note,) = (w for w in found.warnings if w.code == "since-start")
    assert dict(note.details) == {"column": name, "epochs": "60.1, 58.8, 59.3"}


def test_a_long_first_epoch_hides_it_in_a_short_log() -> None:
    long = tuple(accumulate((40.1, 8.7, 8.6, 6.0, 7.0, 5.7)))  # of a YOLO run
    assert steady(read(long)) == pytest.approx((8.7, 8.6, 6.0, 7.0, 5.7))
    with pytest.raises(EpochcastError, match=r"--map epoch_seconds=epoch_time.* elapsed_seconds="):
        read(long[:3])
    as_epochs = read(long[:3], renamed={"epoch_time": "epoch_seconds"})
    assert steady(as_epochs) == pytest.approx(long[1:3])
    as_elapsed = read(long[:3], renamed={"epoch_time": "elapsed_seconds"})
    assert steady(as_elapsed) == pytest.approx((8.7, 8.6))


def test_epochs_between_are_counted_in() -> None:
    found = read((60, 100, 150), "elapsed", epochs=(1, 5, 10))
    assert steady(found) == pytest.approx((10, 10))
    later = read((600, 650, 700), "elapsed", epochs=(10, 15, 20))
    assert steady(later) == pytest.approx((10, 10))
    assert later.measurements[0].warmup_seconds == ()


def test_rows_of_one_run_without_epochs_are_asked() -> None:
    rows = "".join(f"50,{seconds}\n" for seconds in accumulate(EPOCHS))
    with pytest.raises(EpochcastError, match=r"from row to row it only rises.* a column epoch"):
        runs.read(f"bs,epoch_s\n{rows}", ImportOptions(workload="a", device="A100", samples=50))


def test_time_does_not_go_back() -> None:
    with pytest.raises(EpochcastError, match="must rise, but 50 comes after 60"):
        read((60, 50), "elapsed")


@given(
    st.lists(st.floats(50, 60), min_size=3, max_size=8),
    st.floats(1, 2.5),
)
def test_sums_of_epochs_are_told_from_epochs(seconds: list[float], first: float) -> None:
    """Epochs that differ by a fifth, the first up to 2.5 times as long."""
    seconds = [seconds[0] * first, *seconds[1:]]
    assert steady(read(list(accumulate(seconds)))) == pytest.approx(seconds[1:])
    if any(after <= before for before, after in pairwise(seconds)):
        assert steady(read(seconds)) == pytest.approx(seconds[1:])


@given(st.permutations([1.0, 1.02, 0.98, 1.05, 0.97]))
def test_epochs_of_a_steady_run_stay_what_they_are(seconds: list[float]) -> None:
    assert median(steady(read(seconds))) == pytest.approx(median(seconds[1:]))


def test_a_clocks_times_do_not_say_when_the_run_began() -> None:
    """TensorBoard's Wall time: the first one is no epoch of 54 years."""
    found = read([1_700_000_000.0 + t for t in (10, 20, 31, 41)], "Wall time")
    (m,) = found.measurements
    assert m.step_seconds == pytest.approx((10, 11, 10))
    assert sum(m.warmup_seconds) < 100


@pytest.mark.parametrize("times", [(1.7e12, 1.7e12 + 9000, 1.7e12 + 18000), (1.7e9,)])
def test_a_clock_that_cannot_be_read_is_refused(times) -> None:
    with pytest.raises(EpochcastError, match=r"no time since the start of a run.*--unit ms"):
        read(times, "Wall time")


@pytest.mark.parametrize("resumed", [(61.0, 119.2, 177.9), (58.0,), (59.0, 118.0)])
def test_times_that_begin_again_after_a_resume_are_asked(resumed: tuple[float, ...]) -> None:
    times = (*accumulate(EPOCHS), *resumed)
    with pytest.raises(EpochcastError, match=r"from epoch 5 on they begin again.*a column run"):
        read(times)
    as_epochs = read(times, renamed={"epoch_time": "epoch_seconds"})
    assert steady(as_epochs) == pytest.approx(times[1:])


def test_epochs_that_rise_a_little_and_fall_are_epochs() -> None:
    for times in ((60.0, 61.0, 62.0, 59.0, 60.5, 61.5), (90.0, 60.0, 61.0, 62.5, 63.0, 58.0)):
        assert steady(read(times)) == pytest.approx(times[1:])


def test_a_time_of_0_is_the_start() -> None:
    found = read((0, 90, 148, 207), "elapsed", epochs=(0, 1, 2, 3))
    assert steady(found) == pytest.approx((58, 59))
    assert found.measurements[0].warmup_seconds[0] > 59


def test_moments_are_times_of_a_clock() -> None:
    rows = ("2026-01-01T23:59:00Z", "2026-01-02 00:00:00", "2026-01-02 00:00:59.500")
    text = "".join(f"50,{n},{moment}\n" for n, moment in enumerate(rows))

    def imported(name: str, **said) -> runs.Imported:
        options = ImportOptions(workload="cnn", device="A100", samples=50, **said)
        return runs.read(f"bs,epoch,{name}\n{text}", options)

    assert steady(imported("at", renamed={"at": "elapsed_seconds"})) == (60.0, 59.5)
    with pytest.raises(EpochcastError, match="expected a positive number, but got '2026-01-01T"):
        imported("epoch_time")
