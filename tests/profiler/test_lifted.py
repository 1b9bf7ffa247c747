"""Other people's training, lifted: each kind is checked, probed and dry run in this process.

Two more, a LightningModule and a Trainer, are in the tests of integrations.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import lifted
import pytest

from epochcast.errors import DryRunError
from epochcast.profiler import timing
from epochcast.profiler.footprint.dry_run import dry_runs
from epochcast.profiler.protocol import Task, TrialSpec, WorkloadSpec
from epochcast.profiler.target import load
from epochcast.profiler.trial import check, run_trial

KINDS = (
    "clip_and_sgd",
    "gan",
    "lstm_with_state",
    "masked_lm",
    "sparse_embeddings",
    "contrastive",
    "unet",
    "lbfgs",
    "full_batch_gnn",
)
# Counted of the same batch, run or not. Sparse gradients have fewer rows where tokens repeat.
ALIKE = ("flops", "operators", "parameters", "optimizer_bytes", "step_peak_bytes")


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Nothing here is about seconds."""
    monkeypatch.setattr(timing, "WARMUP_LIMIT_SECONDS", 0.0)
    load.cache_clear()
    yield
    load.cache_clear()


def spec_of(kind):
    target = f"{lifted.__file__}:{kind}"
    return TrialSpec(workload=WorkloadSpec(target=target), steady_seconds=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_training_is_checked_probed_and_dry_run(kind, tmp_path: Path):
    spec = spec_of(kind)
    found = check(Task(kind="check", spec=spec))
    assert (found.problem, found.trouble, found.warnings) == ("", "", ())
    spec = replace(spec, batch_size=found.config.batch_size)
    measured = run_trial(Task(kind="trial", spec=spec, folder=str(tmp_path)))
    assert (measured.status, measured.message) == ("ok", "")
    assert measured.footprint is not None
    assert measured.save_bytes
    assert bool(measured.eval_batch_seconds) == (measured.eval_samples > 0)
    if kind == "lbfgs":
        assert measured.update_seconds == ()
        with pytest.raises(
            DryRunError, match="LBFGS evaluates the loss as often as its values ask"
        ):
            dry_runs(spec, [None])
        return
    assert len(measured.update_seconds) == len(measured.step_seconds)
    (counted,) = dry_runs(spec, [None])
    names = [n for n in ALIKE if not (kind == "sparse_embeddings" and n == "step_peak_bytes")]
    real, fake = measured.footprint, counted.footprint
    assert {n: getattr(fake, n) for n in names} == {n: getattr(real, n) for n in names}
