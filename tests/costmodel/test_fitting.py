"""A fit of measurements with a known truth finds that truth, whatever their order or unit."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import truths
from hypothesis import given, settings
from hypothesis import strategies as st

from epochcast.costmodel import features as f
from epochcast.costmodel import summary
from epochcast.costmodel.fitting import fit
from epochcast.costmodel.model import CostModel
from epochcast.costmodel.scatter import LEAST_RUN_SD
from epochcast.errors import FitError, PredictionError, StoreError
from epochcast.records import (
    Device,
    Footprint,
    Measurement,
    RunConfig,
    SizeValue,
    make_sizes,
    to_json,
)

EXACT = fit(truths.sweep())


@settings(max_examples=25)
@given(batch_size=st.integers(32, 256), width=st.sampled_from([256, 400, 512, 777, 1024]))
def test_without_noise_unseen_configurations_are_exact(batch_size: int, width: int) -> None:
    estimate = EXACT.predict(epochs=1, batch_size=batch_size, width=width)
    truth = truths.compute_seconds(batch_size, width) + truths.update_seconds(width)
    assert estimate.step_seconds.p50 == pytest.approx(truth, rel=1e-3)
    peak = truths.footprint(batch_size, width).peak_bytes
    assert estimate.peak_bytes is not None
    assert estimate.peak_bytes.p50 == pytest.approx(peak, rel=1e-3)


@settings(max_examples=10)
@given(st.randoms())
def test_the_order_of_measurements_does_not_matter(random: object) -> None:
    measurements = truths.sweep(round_sd=0.05, trial_sd=0.02)
    shuffled = list(measurements)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert to_json(fit(shuffled)) == to_json(fit(measurements))


@settings(max_examples=10)
@given(scale=st.floats(1e-2, 1e2))
def test_predictions_scale_with_the_unit_of_time(scale: float) -> None:
    slower = fit([truths.measure(b, w, factor=scale) for b in (32, 128) for w in (256, 512)])
    plain = fit([truths.measure(b, w) for b in (32, 128) for w in (256, 512)])
    question = {"epochs": 7, "batch_size": 64, "width": 300}
    fast, slow = plain.predict(**question), slower.predict(**question)  # type: ignore[arg-type]
    assert slow.epoch_seconds.p50 == pytest.approx(scale * fast.epoch_seconds.p50, rel=1e-4)
    assert slow.epoch_seconds.p90 == pytest.approx(scale * fast.epoch_seconds.p90, rel=1e-4)


def test_a_model_survives_its_file(tmp_path: object) -> None:
    path = tmp_path / "model.json"  # type: ignore[operator]
    EXACT.save(path)
    assert CostModel.load(path) == EXACT


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema": 99}', "no json"])
def test_files_that_are_no_models_are_refused(tmp_path: object, text: str) -> None:
    path = tmp_path / "model.json"  # type: ignore[operator]
    path.write_text(text)
    with pytest.raises(StoreError):
        CostModel.load(path)
    with pytest.raises(StoreError, match="cannot read"):
        CostModel.load(tmp_path / "absent.json")  # type: ignore[operator]


def test_rounds_give_the_scatter() -> None:
    model = fit(truths.sweep(rounds=6, round_sd=0.1, trial_sd=0.01, seed=4))
    assert model.variants[0].run.sd == pytest.approx(0.1, rel=0.5)
    assert EXACT.variants[0].run.sd == LEAST_RUN_SD


@pytest.mark.parametrize(("sd", "told"), [(0.005, False), (0.3, True)])
def test_rounds_that_differ_much_are_told_with_every_estimate(sd: float, told: bool) -> None:
    sweep = truths.sweep(batch_sizes=(32, 64), widths=(256,), round_sd=sd)
    warnings = {w.code: dict(w.details) for w in fit(sweep).predict(epochs=1).warnings}
    assert ("rounds-differ" in warnings) == told
    assert not told or warnings["rounds-differ"]["rounds"] == "3"


@pytest.mark.parametrize("round_sd", [0.02, 0.2])
def test_intervals_cover_runs_of_unseen_configurations(round_sd: float) -> None:
    """P10–P90 of a step holds a further run's in about 80 % of simulated sweeps, P5–P95 in 90 %."""
    random, inside, well_inside, trials = np.random.default_rng(0), 0, 0, 60
    for seed in range(trials):
        model = fit(truths.sweep(rounds=4, round_sd=round_sd, trial_sd=0.02, seed=seed))
        q = model.predict(epochs=1, batch_size=96, width=700).step_seconds
        truth = truths.compute_seconds(96, 700) + truths.update_seconds(700)
        run = truth * math.exp(random.normal(0, round_sd) + random.normal(0, 0.02))
        inside += q.p10 <= run <= q.p90
        well_inside += q.p05 <= run <= q.p95
    assert 0.68 <= inside / trials <= 0.92
    assert 0.80 <= well_inside / trials <= 0.98


@pytest.mark.parametrize(("noise", "step"), [(0.12, 1.0), (0.03, 1.3)])
def test_intervals_of_five_configurations_cover_runs_inside_and_beyond(
    noise: float, step: float
) -> None:
    """P5–P95 holds a further run in 85 % and more, of a smooth truth, and of one that is 30 %
    slower from a batch size of 100 on, which no form of the model knows."""

    def truth(batch_size: int) -> float:
        return truths.compute_seconds(batch_size, 512) * (step if batch_size >= 100 else 1.0)

    random, inside, update = np.random.default_rng(8), [], truths.update_seconds(512)
    for _ in range(12):
        trials = []
        for round_ in range(3):
            shared = random.normal(0, noise)
            for trial, b in enumerate((16, 32, 64, 128, 256)):
                compute = truth(b) * math.exp(shared + random.normal(0, noise))
                steps = {"step_seconds": (compute + update,), "update_seconds": (update,)}
                trials.append(
                    truths.measure(
                        b, 512, round_=round_, trial=trial, **steps, data_wait_seconds=(1e-4,)
                    )
                )
        model = fit(trials)
        for b in (24, 96, 180, 384, 512):
            q = model.predict(epochs=1, batch_size=b, width=512).step_seconds
            runs = truth(b) * np.exp(random.normal(0, noise * 2**0.5, 20)) + update
            inside += [q.p05 <= run <= q.p95 for run in runs]
    assert 0.85 <= np.mean(inside) <= 0.99


def test_failures_are_data_about_the_sweep_and_not_about_time() -> None:
    failed = truths.measure(4096, 256, status="oom", message="out of memory", step_seconds=())
    with_failure = fit([*truths.sweep(), failed])
    assert with_failure.variants == EXACT.variants
    assert with_failure.probing_seconds > EXACT.probing_seconds


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workload": "another"}, "one workload, but got 2: another, imaginary"),
        ({"source": "def"}, "one version of the workload's code"),
        (
            {"device": Device(kind="cuda", name="G", memory_bytes=9, torch="2", threads=1)},
            "one device",
        ),
    ],
)
def test_measurements_that_do_not_belong_together_are_refused(
    change: dict[str, object], message: str
) -> None:
    stranger = replace(truths.measure(32, 256), **change)  # type: ignore[arg-type]
    with pytest.raises(FitError, match=message):
        fit([truths.measure(64, 256), stranger])


def test_another_number_of_samples_is_another_data_set() -> None:
    few, many = truths.measure(64, 256, samples=1_000), truths.measure(32, 256, samples=10_000)
    message = (
        "one number of training samples, but got 2 with depth=1 width=256: 1,000, 10,000; "
        "another data set needs another workload name"
    )
    with pytest.raises(FitError, match=message):
        fit([few, many])
    larger = truths.measure(32, 512, samples=2_000)  # a knob may decide it
    model = fit([few, larger])
    assert model.predict(epochs=1, batch_size=32, width=256).samples == 1_000
    assert model.predict(epochs=1, batch_size=32, width=512).samples == 2_000
    fit([few, replace(few, eval_samples=0, round=1)])  # an evaluation is no data set


def test_nothing_and_nothing_but_failures_are_refused() -> None:
    with pytest.raises(FitError, match="no measurements"):
        fit([])
    failed = truths.measure(32, 256, status="crashed", message="Boom: it broke", step_seconds=())
    with pytest.raises(FitError, match=r"none of the 1 measurements succeeded.*Boom"):
        fit([failed])


def test_a_measurement_without_footprint_or_side_measurements_is_enough() -> None:
    """As one made elsewhere: step times and nothing else."""
    bare = [
        Measurement(
            workload="logs",
            config=RunConfig(batch_size=b, sizes=make_sizes({"width": w})),
            device=truths.DEVICE,
            samples=1000,
            step_seconds=(0.001 + 1e-5 * b * w / 256,),
        )
        for b in (8, 16, 32, 64)
        for w in (256, 512, 1024)
    ]
    estimate = fit(bare).predict(epochs=3, batch_size=24, width=700)
    assert estimate.step_seconds.p50 == pytest.approx(0.001 + 1e-5 * 24 * 700 / 256, rel=0.05)
    assert estimate.peak_bytes is None
    assert {term.name for term in estimate.terms if term.seconds.p50} == {
        "training steps",
        "last partial batches",
    }


def test_a_single_measurement_gives_wide_intervals_and_says_why() -> None:
    estimate = fit([truths.measure(64, 256)]).predict(epochs=2)
    assert {w.code for w in estimate.warnings} == {"one-round", "few-configurations"}
    assert estimate.epoch_seconds.p90 / estimate.epoch_seconds.p50 > 1.2


def test_knobs_that_are_no_numbers_make_variants() -> None:
    def trial(norm: str, batch_size: int, factor: float) -> Measurement:
        config = RunConfig(batch_size=batch_size, sizes=make_sizes({"norm": norm, "width": 256}))
        return replace(truths.measure(batch_size, 256, factor=factor), config=config)

    model = fit([trial(n, b, f) for n, f in (("batch", 1.0), ("layer", 3.0)) for b in (32, 64)])
    assert len(model.variants) == 2
    fast = model.predict(epochs=1, batch_size=32, norm="batch").step_seconds.p50
    slow = model.predict(epochs=1, batch_size=32, norm="layer").step_seconds.p50
    assert slow / fast == pytest.approx(3.0)


def test_building_is_priced_as_in_a_fresh_process() -> None:
    """A process's first build also imports what the workload's function imports."""
    measurements = [
        replace(m, build_seconds=2.0 if m.trial == 0 else 0.001) for m in truths.sweep()
    ]
    startup = next(t for t in fit(measurements).predict(epochs=1).terms if t.name == "start-up")
    assert startup.seconds.p50 == pytest.approx(2.0 + 2.0, rel=1e-6)


def test_batches_of_other_sizes_than_usual_are_priced_by_their_padded_elements() -> None:
    """Steps take 1 ms + 1 µs an element; those that were timed are a fifth larger than the mean."""
    sizes = tuple(float(1000 + 10 * (i % 41)) for i in range(41))  # mean 1,200
    counted = replace(truths.footprint(64, 256), batch_elements=1000)
    m = truths.measure(
        64,
        256,
        batch_elements=sizes,
        step_seconds=tuple(1e-3 + 1e-6 * e for e in sizes),
        update_seconds=(),
        data_wait_seconds=(0.0,) * len(sizes),
        footprint=counted,
    )
    assert summary.micro_seconds(m) == pytest.approx(1e-3 + 1e-6 * 1000, rel=5e-3)
    plain = replace(m, batch_elements=())
    assert summary.micro_seconds(plain) == pytest.approx(1e-3 + 1e-6 * 1200, rel=1e-2)


def test_padding_grows_with_the_logarithm_of_the_batch() -> None:
    """Elements B·(20 + 5·log₂ 2B) and a time in proportion, at batch sizes never probed."""

    def elements(b: int) -> int:
        return round(b * (20 + 5 * math.log2(2 * b)))

    def trial(b: int) -> Measurement:
        counted = replace(truths.footprint(b, 256), batch_elements=elements(b))
        return truths.measure(
            b,
            256,
            footprint=counted,
            update_seconds=(),
            data_wait_seconds=(0.0,),
            step_seconds=(1e-4 + 1e-6 * elements(b),),
        )

    model = fit([trial(b) for b in (4, 8, 16, 32, 64, 128, 256)])
    for b in (6, 48, 200):
        got = model.predict(epochs=1, batch_size=b).step_seconds.p50
        assert got == pytest.approx(1e-4 + 1e-6 * elements(b), rel=0.02)


def test_what_does_not_depend_on_the_batch_is_the_mean_over_batches() -> None:
    """Updates of one width, timed at four batch sizes, each off by its own factor."""
    off = {32: 1.3, 64: 0.8, 128: 1.1, 256: 0.9}
    found = []
    for m in truths.sweep(widths=(256, 512, 1024, 2048)):
        update = tuple(u * off[m.config.batch_size] for u in m.update_seconds)
        rest = (s - u for s, u in zip(m.step_seconds, m.update_seconds, strict=True))
        steps = tuple(r + u for r, u in zip(rest, update, strict=True))
        found.append(replace(m, update_seconds=update, step_seconds=steps))
    variant = fit(found).variants[0]
    assert variant.update is not None
    mean = math.prod(off.values()) ** 0.25
    for width in (256, 700, 2048):
        row = f.variables(
            RunConfig(batch_size=64, sizes=make_sizes({"depth": 1, "width": width})),
            truths.footprint(64, width),
        )
        assert variant.update.value(row) == pytest.approx(
            mean * truths.update_seconds(width), rel=1e-3
        )


def test_one_configuration_is_priced_in_proportion_to_its_work() -> None:
    """With nothing to tell launches from work, twice the batch takes twice as long."""
    model = fit([truths.measure(64, 256, round_=r) for r in range(3)])
    half, one, two = (
        model.predict(epochs=1, batch_size=b, eval_every=0).step_seconds for b in (32, 64, 128)
    )
    update = truths.update_seconds(256)
    assert two.p50 - update == pytest.approx(2 * (one.p50 - update), rel=1e-6)
    assert half.p50 - update == pytest.approx((one.p50 - update) / 2, rel=1e-6)
    assert two.p95 / two.p50 > one.p95 / one.p50


def test_a_knob_never_varied_is_refused_at_another_value_until_it_is_counted() -> None:
    sweep = truths.sweep(widths=(256,))
    with pytest.raises(PredictionError, match=r"width was never varied.*dry-run imaginary"):
        fit(sweep).predict(epochs=1, batch_size=64, width=4096)
    with pytest.raises(PredictionError, match="width was never varied"):
        fit(sweep).largest_batch(2**33, width=4096)
    config = RunConfig(batch_size=64, sizes=make_sizes({"depth": 1, "width": 4096}))
    counted = fit(sweep, {config: truths.footprint(64, 4096)})
    estimate = counted.predict(epochs=1, batch_size=64, width=4096)
    assert estimate.peak_bytes is not None
    assert estimate.peak_bytes.p50 == truths.footprint(64, 4096).peak_bytes
    assert estimate.step_seconds.p50 > 3 * fit(sweep).predict(epochs=1).step_seconds.p50
    given = fit(sweep).predict(
        epochs=1, batch_size=64, width=4096, footprint=truths.footprint(64, 4096)
    )
    assert given.peak_bytes == estimate.peak_bytes


def test_measurements_with_other_knobs_are_other_variants() -> None:
    other = replace(
        truths.measure(64, 256),
        config=RunConfig(batch_size=64, sizes=make_sizes({"depth": 1, "heads": 4, "width": 256})),
        created_at="2027-01-01",
    )
    model = fit([*truths.sweep(), other])
    assert len(model.variants) == 2
    assert model.predict(epochs=1, batch_size=32).step_seconds.p50 > 0


def test_a_footprint_that_lacks_counts_is_completed() -> None:
    some = Footprint.of_counts(flops=truths.footprint(64, 512).flops)
    estimate = EXACT.predict(epochs=1, batch_size=64, width=512, footprint=some)
    plain = EXACT.predict(epochs=1, batch_size=64, width=512)
    assert estimate.step_seconds.p50 == pytest.approx(plain.step_seconds.p50, rel=0.2)


def test_true_is_no_number_of_a_knob() -> None:
    with pytest.raises(PredictionError, match="'depth' takes positive numbers of at most"):
        EXACT.predict(epochs=1, depth=True)


def test_models_that_no_knob_tells_apart_are_no_rounds_of_one() -> None:
    """Imported runs of two widths whose table has no column for the width."""
    one, two = truths.measure(32, 64), truths.measure(32, 256, round_=1)
    unnamed = [replace(m, config=replace(m.config, sizes=())) for m in (one, two)]
    with pytest.raises(FitError, match="between 50,890 and 203,530 parameters; name what tells"):
        fit(unnamed)


def _timed(batch_size: int, seconds: float, run: int = 0, **more: Any) -> Measurement:
    return Measurement.from_epochs(
        "w",
        batch_size,
        step_seconds=[seconds],
        samples=1000,
        device="a card (cuda)",
        run=run,
        created_at=f"2026-01-01T00:00:0{run}",
        **more,
    )


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_was_measured_at_zero_is_answered_whatever_was_measured_last(
    order: tuple[int, int],
) -> None:
    runs = {value: run for run, value in enumerate(order)}
    model = fit(
        _timed(b, 1e-3 * (1 + k), runs[k], sizes={"k": k}) for b in (8, 16, 32) for k in order
    )
    for k in order:
        at = model.predict(epochs=1, batch_size=16, k=k)
        assert at.step_seconds.p50 == pytest.approx(1e-3 * (1 + k), rel=0.05)
    with pytest.raises(PredictionError, match="'k' takes numbers from 0 on, but got -1"):
        model.predict(epochs=1, k=-1)


def test_refusals_say_what_a_knob_takes_and_where_it_was_not_varied() -> None:
    on = fit(_timed(b, 1e-3, sizes={"on": on}) for b in (8, 16) for on in (True, False))
    with pytest.raises(PredictionError, match="'on' takes true or false, but got 1"):
        on.predict(epochs=1, on=1)
    sizes: list[dict[str, SizeValue]] = [{"act": a, "width": 8} for a in "ab"]
    acts = fit(_timed(b, 1e-3, sizes=s) for b in (8, 16) for s in sizes)
    with pytest.raises(PredictionError, match="width was never varied where act=b, so"):
        acts.predict(epochs=1, act="b", width=16)
