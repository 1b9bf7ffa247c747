"""Times on a GPU that was not measured: closed forms of the roofline, and what stays the host's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import log
from pathlib import Path

import pytest
import truths
from click.testing import CliRunner

from epochcast.cli import cli
from epochcast.costmodel.other_device import (
    COMMON,
    LAUNCH_SECONDS,
    PEAK_LOST,
    _moved,
    doubt,
    model_on,
    weight,
    work_seconds,
)
from epochcast.devices.cards import card_named, card_of
from epochcast.errors import PredictionError, UsageError
from epochcast.records import Device, Measurement, RunConfig
from epochcast.report.text.warnings import warning_text
from epochcast.storage.query import fitted_model
from epochcast.storage.store import Store

A100, H100, V100 = map(card_named, ("a100-40gb", "h100", "v100-16gb"))
HERE = Device(
    kind="cuda",
    name="NVIDIA A100-SXM4-40GB",
    memory_bytes=A100.device.memory_bytes,
    torch="2.13.0",
    threads=8,
)
THERE = replace(HERE, name="NVIDIA H100 80GB HBM3", memory_bytes=H100.device.memory_bytes)
COUNTS = truths.footprint(64, 512)
FP32, BF16 = RunConfig(batch_size=64), RunConfig(batch_size=64, precision="bf16")


def counts(kind: str, flops: int, moved: int = 0):
    return replace(COUNTS, flops=flops, flops_by_class=((kind, flops),), bytes_moved=moved)


def test_bytes_take_as_long_as_the_bandwidth_says() -> None:
    moved = counts("matmul", 0, 10**9)
    assert work_seconds(moved, FP32, A100) == pytest.approx(1e9 / 1555e9)


@pytest.mark.parametrize(
    ("kind", "config", "peak"),
    [
        ("matmul", FP32, 19.5e12),
        ("convolution", FP32, 156e12),
        ("matmul", BF16, 312e12),
        ("attention", BF16, 312e12),
    ],
)
def test_flops_take_as_long_as_the_precision_of_their_class_says(kind, config, peak) -> None:
    reached = peak ** (1 - PEAK_LOST) * (100 * 1555e9) ** PEAK_LOST
    assert work_seconds(counts(kind, 10**12), config, A100) == pytest.approx(1e12 / reached)


def test_a_card_without_tf32_convolves_in_float32() -> None:
    both = [work_seconds(counts(kind, 10**12), FP32, V100) for kind in ("convolution", "matmul")]
    assert both[0] == both[1]


def test_a_precision_that_a_data_sheet_lacks_is_refused() -> None:
    with pytest.raises(PredictionError, match="data sheet of v100-16gb has no rate for bf16, only"):
        work_seconds(COUNTS, BF16, V100)


def one(**changes) -> Measurement:
    return truths.measure(64, 512, device=HERE, **changes)


def test_waiting_for_data_stays_and_computing_changes() -> None:
    m = one(step_seconds=(0.5, 0.7), data_wait_seconds=(0.2, 0.4), loader_seconds=(0.2,))
    moved = _moved(m, COUNTS, (1.0, 0.5), THERE)
    assert moved.data_wait_seconds == (0.2, 0.4)
    assert moved.step_seconds == pytest.approx((0.35, 0.55))
    assert moved.device == THERE


def test_workers_that_load_behind_the_compute_are_waited_for() -> None:
    config = replace(one().config, workers=2)
    m = one(step_seconds=(0.5,), data_wait_seconds=(0.0,), loader_seconds=(0.8,))
    moved = _moved(replace(m, config=config), COUNTS, (1.0, 0.2), THERE)
    assert moved.step_seconds == pytest.approx((0.4,))  # a batch of each of two workers in 0.8 s


def test_no_step_is_shorter_than_starting_its_operators() -> None:
    busy = replace(COUNTS, operators=1000)
    floor = 1000 * LAUNCH_SECONDS
    m = one(step_seconds=(2 * floor,), data_wait_seconds=())
    assert _moved(m, busy, (1.0, 0.1), THERE).step_seconds == pytest.approx((floor,))
    m = one(step_seconds=(floor / 2,), data_wait_seconds=())  # nothing but that
    assert _moved(m, busy, (1.0, 0.1), THERE).step_seconds == pytest.approx((floor / 2,))
    compiled = replace(m, config=replace(m.config, compiled=True))
    assert _moved(compiled, busy, (1.0, 0.1), THERE).step_seconds == pytest.approx((floor / 20,))


def test_a_probe_counts_for_what_is_common_and_narrows() -> None:
    assert weight(0) == 0
    assert weight(1) == pytest.approx(COMMON)
    assert doubt(1.0) == pytest.approx(0.1)
    assert doubt(0.5) == pytest.approx(doubt(2.0))
    assert doubt(2.0, 1) ** 2 == pytest.approx(doubt(2.0) ** 2 * (1 - COMMON**2))
    assert doubt(2.0) > doubt(2.0, 1) > doubt(2.0, 5) > doubt(2.0) * (1 - COMMON) ** 0.5


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(folder=tmp_path_factory.mktemp("store")) as opened:
        opened.add_all(replace(m, device=HERE) for m in truths.sweep(round_sd=0.01))
        yield opened


def test_a_transferred_answer_is_flagged_wide_and_corrected(store: Store) -> None:
    here, _ = fitted_model(store)
    there, _ = fitted_model(store, on="h100")
    assert (there.device.name, there.measured_on) == ("h100", HERE)
    before, blind = (model.predict(steps=10, batch_size=64, width=512) for model in (here, there))
    assert blind.step_seconds.p50 < before.step_seconds.p50
    assert spread(blind) > 3 * spread(before)
    (note,) = (w for w in blind.warnings if w.code == "transferred")
    assert warning_text(note).startswith(
        "measured on NVIDIA A100-SXM4-40GB, and transferred to h100"
    )

    slow = truths.measure(64, 512, device=THERE, created_at="2027")
    slow = replace(slow, step_seconds=(2 * blind.step_seconds.p50,), data_wait_seconds=())
    model = model_on(store.measurements(), {}, (A100, H100), [slow])
    corrected = model.predict(steps=10, batch_size=64, width=512)
    factor = corrected.step_seconds.p50 / blind.step_seconds.p50
    assert log(factor) == pytest.approx(COMMON * log(2), rel=0.05)
    assert spread(corrected) < spread(blind)
    assert model.device == THERE


def spread(estimate) -> float:
    return log(estimate.step_seconds.p95 / estimate.step_seconds.p05)


def test_the_command_and_its_refusals(store: Store, tmp_path: Path) -> None:
    def predict(*arguments: str, where: Store = store) -> str:
        file = str(where.folder / "measurements.sqlite")
        done = CliRunner().invoke(cli, ["predict", "--steps", "10", "--store", file, *arguments])
        return done.stdout if done.exit_code == 0 else done.stderr.splitlines()[-1]

    assert "on h100 (cuda" in predict("--on", "h100")
    assert "any of a100-40gb, a100-80gb" in predict("--on", "a100")
    assert "was measured on a100-40gb itself: leave --on out" in predict("--on", "a100-40gb")
    same = predict("--on", "a100-40gb", "--device", "a100")
    assert "leave --on out" in same
    for mistaken in ("tpu", "cpu", "", "h100,a100", "24GiB"):
        assert "a card with a data sheet is one of t4, " in predict("--on", mistaken)
    assert "4 devices take to average gradients" in predict("--on", "h100", "--world-size", "4")
    price = predict("--on", "h100", "--price-per-hour", "a100=4.5")
    assert "given for 'a100', but the device is h100" in price
    with Store.open(folder=tmp_path) as bare:
        bare.add(one(footprint=None))
        said = predict("--on", "h100", where=bare)
        assert "no FLOPs and bytes of imaginary were counted" in said
        assert "epochcast dry-run imaginary" in said
    with Store.open(folder=tmp_path / "imported") as bare:
        bare.add(one(footprint=None, data="imported"))
        said = predict("--on", "h100", where=bare)
        assert "with a column flops, or --workload and --footprints" in said
    with Store.open(folder=tmp_path / "cpu") as cpu:
        cpu.add(truths.measure(64, 512))
        said = predict("--on", "h100", where=cpu)
        assert "was measured on Imaginary" in said
        assert "probe on one; of its memory tells epochcast dry-run imaginary --device h100" in said


def test_only_what_one_device_took_alone_is_transferred(store: Store) -> None:
    alone = store.measurements()
    four = [replace(m, config=replace(m.config, world_size=4), created_at="2028") for m in alone]
    four = [replace(m, step_seconds=tuple(3 * s for s in m.step_seconds)) for m in four]
    expected, found = (
        model_on(ms, {}, (A100, H100), seen).predict(steps=10, batch_size=64, width=512)
        for ms, seen in ((alone, ()), ([*alone, *four], [replace(four[0], device=THERE)]))
    )
    assert found.step_seconds == expected.step_seconds
    with pytest.raises(PredictionError, match="on several devices together only"):
        model_on(four, {}, (A100, H100))


def test_cards_are_known_by_what_cuda_says() -> None:
    for name, memory, card in (
        ("NVIDIA H100 80GB HBM3", 85_029_158_912, "h100"),
        ("NVIDIA H200", 150_109_880_320, "h200"),
        ("NVIDIA A100-SXM4-80GB", 84_990_623_744, "a100-80gb"),
        ("NVIDIA L4", 23_600_000_000, "l4"),
        ("NVIDIA A100 40GB", 0, "a100-40gb"),
    ):
        found = card_of(name, memory)
        assert found is not None
        assert found.device.name == card
    assert card_of("Intel Xeon", 10**10) is None
    assert card_of("NVIDIA A100", 0) is None
    with pytest.raises(UsageError, match="a card with a data sheet is one of t4, "):
        card_named("24GiB")


def test_ratios_there_and_back_are_one() -> None:
    ratio = work_seconds(COUNTS, FP32, H100) / work_seconds(COUNTS, FP32, A100)
    assert ratio < 1
    assert doubt(ratio) == doubt(1 / ratio)
