"""The largest that fits, and what-ifs, over trainings whose allocations are known."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
from sequences import MIB, training
from strategies import make_measurement

from epochcast.api import following, largest, memory
from epochcast.errors import UsageError, WorkloadError
from epochcast.profiler.protocol import Description
from epochcast.profiler.request import SweepRequest
from epochcast.records import Device, DeviceSpec, RunConfig

SAMPLES = 400  # of the data set


class Trainings:
    """Stands for dry runs: a batch of n MiB, or of (width / 512)² of that."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def follow(self, request, device, workers=None):
        sizes = {name: values[0] for name, values in request.sizes.items()}
        sizes = {"width": 512, **sizes}
        asked = [b or 16 for b in request.batch_sizes or (None,)]
        filled = [b for b in asked if b <= SAMPLES]
        if not filled:
            raise WorkloadError(f"batch size {asked[0]} is more than the data set's samples")
        self.asked += filled
        accumulation = int(request.overrides.get("accumulation", 1))
        if request.what_if.get("checkpointing") == "on":
            scale = 0.25
        else:
            scale = (sizes["width"] / 512) ** 2
        return tuple(
            following.Followed(
                config=self.config(b, sizes, accumulation),
                sequence=self.sequence(max(1, round(b * scale)), device),
                seconds=0.1,
            )
            for b in filled
        )

    def config(self, batch_size, sizes, accumulation=1):
        return RunConfig(
            batch_size=batch_size, sizes=tuple(sizes.items()), accumulation=accumulation
        )

    def sequence(self, batch_size, device):
        return replace(training(batch_size, device=device), samples=SAMPLES)


@pytest.fixture
def trainings(monkeypatch):
    made = Trainings()
    monkeypatch.setattr(largest, "follow", made.follow)
    monkeypatch.setattr(memory, "follow", made.follow)
    return made


T4 = training().device
CPU = Device(kind="cpu", name="a CPU", memory_bytes=MIB, torch="2", threads=1)


def question(mib, **changes):
    device = DeviceSpec(
        name="some",
        memory_bytes=mib * MIB,
        capability=(8, 0),
        multiprocessors=104,
        threads_per_multiprocessor=2048,
    )
    return following.MemoryQuestion(device=device, **changes)


REQUEST = SweepRequest(target="mnist-mlp")


@pytest.mark.parametrize("mib", [750, 900, 1201])
def test_the_largest_batch_is_followed_and_so_is_the_next(trainings, mib) -> None:
    found = largest.largest_batch(REQUEST, question(mib))
    assert found.value is not None
    assert found.need is not None
    assert found.above is not None
    assert found.need.config.batch_size == found.value
    assert found.need.needed_bytes <= mib * MIB < found.above.needed_bytes
    assert len(set(trainings.asked)) <= 6


def test_small_batches_may_take_other_kernels(trainings, monkeypatch) -> None:
    """Below 32 samples the events are others: lines are drawn above."""
    follow = largest.follow

    def otherwise(request, device, workers=None):
        return tuple(
            f
            if f.config.batch_size >= 32
            else replace(f, sequence=replace(f.sequence, events=(*f.sequence.events, -1)))
            for f in follow(request, device, workers)
        )

    monkeypatch.setattr(largest, "follow", otherwise)
    found = largest.largest_batch(REQUEST, question(900))
    assert found.need is not None
    assert found.above is not None
    assert found.need.fits
    assert not found.above.fits


def test_large_batches_may_take_other_kernels(trainings, monkeypatch) -> None:
    """From 64 samples on each takes a quarter more, so the lines of small ones lead too far."""
    follow, asked = largest.follow, []

    def otherwise(request, device, workers=None):
        asked.extend(request.batch_sizes or ())
        followed = follow(request, device, workers)
        return tuple(
            f
            if (b := f.config.batch_size) < 64
            else replace(f, sequence=training(round(1.25 * b), device=device))
            for f in followed
        )

    monkeypatch.setitem(globals(), "SAMPLES", 4000)
    found = largest.largest_batch(REQUEST, question(9_000))
    monkeypatch.setattr(largest, "follow", otherwise)
    fewer = largest.largest_batch(REQUEST, question(9_000))
    assert found.value is not None
    assert fewer.value is not None
    assert abs(1.25 * fewer.value - found.value) < 3
    assert fewer.above is not None
    assert len(asked) <= 9


def test_the_data_set_may_end_it(trainings) -> None:
    found = largest.largest_batch(REQUEST, question(10_000))
    assert found.value == SAMPLES
    assert found.above is None
    assert found.why_ended == "the training data has 400 samples"
    assert len(trainings.asked) <= 4


def test_nothing_fits(trainings) -> None:
    found = largest.largest_batch(REQUEST, question(100))
    assert (found.value, found.need) == (None, None)
    assert found.above is not None


def test_what_others_use_is_not_there(trainings) -> None:
    whole = largest.largest_batch(REQUEST, question(1000)).value
    less = largest.largest_batch(REQUEST, question(1500, used_bytes=500 * MIB)).value
    assert whole == less


def test_the_largest_value_of_a_knob(trainings) -> None:
    found = largest.largest_knob(REQUEST, question(1000), None, "width", 512)
    assert found.step == 64
    assert found.value is not None
    assert found.need is not None
    assert found.above is not None
    assert found.value % 64 == 0
    assert found.need.fits
    assert not found.above.fits
    assert dict(found.above.config.sizes)["width"] == found.value + 64


def test_all_largest_values(trainings) -> None:
    batch, width = largest.largest_values(REQUEST, question(1000))
    assert (batch.name, width.name) == ("batch_size", "width")


def test_what_ifs_side_by_side(trainings) -> None:
    what_ifs = [("checkpointing", ("on",)), ("accumulation", (1, 2, 3)), ("width", (1024,))]
    found = memory.alternatives(REQUEST, question(1000), what_ifs)
    assert [a.changes for a in found[:2]] == [(), (("checkpointing", "on"),)]
    base, kept, one, two, three, wide = found
    assert base.need is not None
    assert kept.need is not None
    assert kept.need.device_bytes.p50 < base.need.device_bytes.p50
    assert kept.largest_batch == SAMPLES < 4 * base.largest_batch  # the data ends before
    # the global batch of 16 stays
    assert [
        a.need and (a.need.config.batch_size, a.need.config.accumulation) for a in (one, two)
    ] == [
        (16, 1),
        (8, 2),
    ]
    assert three.problem == "a global batch of 16 cannot be divided into 3 micro-batches"
    assert wide.need is not None
    assert wide.need.device_bytes.p50 > base.need.device_bytes.p50


def test_a_change_is_an_override_a_what_if_or_a_knob() -> None:
    config = make_measurement().config
    assert memory.changed(REQUEST, config, "precision", "bf16").overrides == {"precision": "bf16"}
    assert memory.changed(REQUEST, config, "optimizer", "sgd").what_if == {"optimizer": "sgd"}
    assert memory.changed(REQUEST, config, "width", 3).sizes == {"width": (3,)}
    assert memory.changed(REQUEST, config, "batch_size", 3).batch_sizes == (3,)


@pytest.mark.parametrize("name", ["batch_size", "accumulation"])
@pytest.mark.parametrize("value", ["x", 0, -1, 1.5, True])
def test_a_change_that_is_no_number_is_told_beside_the_others(trainings, name, value) -> None:
    _, found = memory.alternatives(REQUEST, question(1000), [(name, (value,))])
    assert found.need is None
    assert found.problem == f"{name} is a whole number of at least 1, but got {value!r}"


def test_a_question_of_text() -> None:
    asked = memory.question_of("t4", 0.9, 7, "expandable_segments:True")
    assert asked.device.name == "t4"
    assert asked.settings.expandable_segments
    assert asked.free_bytes == asked.device.memory_bytes - 7
    with pytest.raises(UsageError, match="between 0 and 1"):
        memory.question_of("t4", 1.0, 0, "")


def test_describing_and_following_go_together(monkeypatch) -> None:
    """One model size is followed at once; that a knob is wrong is told all the same."""
    made, asked = Trainings(), []

    def describing(request, worker):
        if "nope" in request.sizes:
            raise UsageError("no knob 'nope'")
        return Description(
            knobs=(("width", 512), ("depth", 2)), takes_data=False, source="", device=CPU
        )

    def follow(workers, spec, batch_sizes, device):
        asked.append((spec.sizes, list(batch_sizes)))
        if dict(spec.sizes).get("nope"):
            raise WorkloadError("it cannot be followed")
        config = made.config(16, dict(spec.sizes))
        return (replace(training(16), config=config),)  # of 16 and 999, which the data cannot fill

    monkeypatch.setattr(following, "describe", describing)
    monkeypatch.setattr(following, "cuda_sequences", follow)
    with following.kept_workers() as workers:
        monkeypatch.setattr(workers, "start", lambda name: nullcontext())
        request = replace(REQUEST, batch_sizes=(16, 999), sizes={"width": (512,)})
        (found,) = following.follow(request, T4, workers)
        assert found.config.sizes == (("depth", 2), ("width", 512))
        assert asked == [((("width", 512),), [16, 999])]
        asked.clear()
        several = following.follow(replace(request, sizes={"width": (512, 64)}), T4, workers)
        assert [dict(f.config.sizes)["width"] for f in several] == [512, 64]
        assert [dict(sizes) for sizes, _ in asked] == [dict(f.config.sizes) for f in several]
        with pytest.raises(UsageError, match="no knob"):
            following.follow(replace(request, sizes={"nope": (3,)}), T4, workers)


def test_what_is_so_already_is_not_followed_again(trainings) -> None:
    request = replace(REQUEST, batch_sizes=(16,))
    what_ifs = [("accumulation", (1,)), ("precision", ("fp32",)), ("width", (512,))]
    base, *others = memory.alternatives(request, question(1000), what_ifs)
    assert all(other == replace(base, changes=other.changes) for other in others)
    assert sorted(trainings.asked) == [16, 32]
