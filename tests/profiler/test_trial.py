"""Real trials of tiny workloads, in this process: what a Measurement holds, whatever happens."""

from __future__ import annotations

import io
import math
import sys
from dataclasses import fields
from statistics import fmean
from types import SimpleNamespace

import pytest
import torch

from epochcast.costmodel.summary import summarise
from epochcast.errors import UsageError
from epochcast.profiler import timing
from epochcast.profiler.protocol import Task, TrialSpec, WorkloadSpec
from epochcast.profiler.target import build, load
from epochcast.profiler.trial import RESTARTS, SAVES, build_afresh, check, run_trial
from epochcast.profiler.workload import first_line
from epochcast.records import from_json, to_json

HEAD = """
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset
from epochcast import Workload

def data(samples, width=6):
    return TensorDataset(torch.randn(samples, width), torch.randn(samples, 2))

def parts(width=5, samples=50, **options):
    model = nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 2))
    return {
        "model": model,
        "train_data": data(samples),
        "eval_data": data(10),
        "optimizer": torch.optim.Adam(model.parameters()),
        "loss": nn.functional.mse_loss,
        "batch_size": 4,
    } | options
"""

WORKLOADS = {
    "plain": "def workload(width: int = 5): return Workload(**parts(width))",
    "no_evaluation": "def workload(): return Workload(**parts(eval_data=None))",
    "frozen": """
def workload():
    given = parts()
    given["model"][0].requires_grad_(False)
    given["optimizer"] = torch.optim.SGD(given["model"][2].parameters(), lr=0.1)
    return Workload(**given)
""",
    "dictionaries": """
class Rows(Dataset):
    def __len__(self): return 50
    def __getitem__(self, i): return {"x": torch.ones(6), "more": {"y": torch.ones(2)}}

def forward(model, batch):
    return nn.functional.mse_loss(model(batch["x"]), batch["more"]["y"])

def workload():
    return Workload(**parts(train_data=Rows(), eval_data=Rows(), loss=None, forward=forward))
""",
    "closure": """
def workload():
    given = parts()
    given["optimizer"] = torch.optim.LBFGS(given["model"].parameters(), max_iter=3)
    return Workload(**given)
""",
    "gan": """
def workload():
    given = parts()
    generator, critic = given["model"], nn.Linear(2, 1)
    g = given["optimizer"]
    c = torch.optim.SGD(critic.parameters(), lr=0.1)

    def train_step(batch):
        x, real = batch
        c.zero_grad()
        (critic(generator(x).detach()).mean() - critic(real).mean()).backward()
        c.step()
        g.zero_grad()
        (-critic(generator(x)).mean()).backward()
        g.step()

    given |= {"loss": None, "train_step": train_step, "eval_step": lambda b: generator(b[0])}
    return Workload(**given)
""",
}

FAILURES = {
    "build": ("def workload(): raise KeyError('mine')", "crashed", "KeyError: 'mine'"),
    "getitem": (
        """
class Broken(Dataset):
    def __len__(self): return 50
    def __getitem__(self, i): raise OSError('file 7 is damaged')

def workload(): return Workload(**parts(train_data=Broken()))
""",
        "crashed",
        "OSError: file 7 is damaged",
    ),
    "getitem_in_worker": (
        """
class Broken(Dataset):
    def __len__(self): return 50
    def __getitem__(self, i): raise OSError('file 7 is damaged')

def workload():
    return Workload(**parts(train_data=Broken(), loader_options={"num_workers": 1}))
""",
        "crashed",
        "OSError: file 7 is damaged",
    ),
    "loss": (
        """
def loss(outputs, targets): raise ArithmeticError('no loss today')
def workload(): return Workload(**parts(loss=loss))
""",
        "crashed",
        "ArithmeticError: no loss today",
    ),
    "shape": (
        """
def workload():
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(7, 2))
    return Workload(**parts(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1)))
""",
        "crashed",
        "layer '2', Linear(in_features=7, out_features=2, bias=True), failed on an input of shape "
        "(4, 5): mat1 and mat2 shapes cannot be multiplied (4x5 and 7x2)",
    ),
    "memory": (
        """
def loss(outputs, targets): return torch.empty(2**60).sum()
def workload(): return Workload(**parts(loss=loss))
""",
        "oom",
        "allocate",
    ),
    "too_few_samples": (
        "def workload(): return Workload(**parts(samples=3))",
        "crashed",
        "batch size 4 is more than the data set's 3 samples",
    ),
    "late": (  # in the evaluation: steps have been timed by then
        """
calls = []
def loss(outputs, targets):
    if not torch.is_grad_enabled(): raise RuntimeError('no evaluation')
    return nn.functional.mse_loss(outputs, targets)
def workload(): return Workload(**parts(loss=loss))
""",
        "crashed",
        "RuntimeError: no evaluation",
    ),
    "exit": ("def workload(): return 3", "crashed", "must return an epochcast.Workload"),
}


@pytest.fixture(autouse=True)
def one_thread_and_clean_imports():
    threads, modules, path = torch.get_num_threads(), set(sys.modules), list(sys.path)
    load.cache_clear()
    yield
    torch.set_num_threads(threads)
    for name in [n for n in set(sys.modules) - modules if n.startswith("tiny_")]:
        del sys.modules[name]
    sys.path[:] = path


@pytest.fixture
def task_of(tmp_path):
    def make(text, kind="trial", name="workload", batch_size=4, sizes=(), **overrides):
        path = tmp_path / "tiny_workload.py"
        path.write_text(HEAD + text)
        workload = WorkloadSpec(
            target=f"{path}:{name}", overrides=tuple(sorted(overrides.items())), threads=1
        )
        spec = TrialSpec(workload=workload, batch_size=batch_size, sizes=sizes, steady_seconds=0.02)
        return Task(kind=kind, spec=spec, folder=str(tmp_path), log="some.log", round=1, trial=2)

    return make


def timed(measurement):
    """Every series of seconds, by name."""
    names = [f.name for f in fields(measurement) if f.name.endswith("_seconds")]
    series = {name: getattr(measurement, name) for name in names}
    return {name: value for name, value in series.items() if isinstance(value, tuple)}


def checked(measurement, task):
    """The facts that hold for every successful trial."""
    assert (measurement.status, measurement.message) == ("ok", "")
    assert measurement.request == task.spec.request
    assert (measurement.round, measurement.trial, measurement.log) == (1, 2, "some.log")
    for name, series in timed(measurement).items():
        assert all(math.isfinite(s) and s >= 0 for s in series), name
    steps = len(measurement.step_seconds)
    assert steps % measurement.config.period == 0
    assert len(measurement.data_wait_seconds) == steps
    assert len(measurement.update_seconds) in (0, steps)
    assert len(measurement.warmup_seconds) >= timing.MIN_WARMUP_UPDATES
    assert len(measurement.loader_restart_seconds) >= RESTARTS
    assert len(measurement.loader_seconds) > 0
    assert len(measurement.save_seconds) == SAVES
    assert measurement.memory is not None
    assert measurement.memory.device_bytes > 0
    assert measurement.import_seconds == 1.5
    assert measurement.probe_seconds > sum(measurement.step_seconds) * measurement.steps_per_sample
    assert from_json(to_json(measurement), type(measurement)) == measurement
    assert summarise([measurement])[0].status == "ok"
    return measurement


def made(task):
    return checked(run_trial(task, import_seconds=1.5), task)


# -- what works ---------------------------------------------------------------------------------


def test_a_plain_workload(task_of):
    task, phases = task_of(WORKLOADS["plain"], sizes=(("width", 5),)), []
    measurement = checked(run_trial(task, 1.5, phases.append), task)
    assert phases == [
        *("build", "warm up", "time steps", "loader alone", "evaluate", "save", "count operators")
    ]
    assert (measurement.samples, measurement.eval_samples) == (50, 10)
    assert measurement.data == "the workload's own"
    assert measurement.config.batch_size == 4
    assert measurement.config.sizes == (("width", 5),)
    assert len(measurement.update_seconds) == len(measurement.step_seconds)
    assert all(update > 0 for update in measurement.update_seconds)
    assert len(measurement.eval_batch_seconds) == len(measurement.eval_restart_seconds) > 0
    assert measurement.footprint.parameters == 6 * 5 + 5 + 5 * 2 + 2


@pytest.mark.parametrize("compiled", [False, True])
def test_a_compiler_that_compiled_nothing_is_left_alone(task_of, monkeypatch, compiled):
    import torch._dynamo.utils as dynamo

    forgotten = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: forgotten.append(True))
    monkeypatch.setattr(dynamo, "counters", {"frames": {"ok": 1}} if compiled else {})
    build_afresh(task_of(WORKLOADS["plain"]).spec)
    assert bool(forgotten) == compiled


def test_the_size_of_a_checkpoint_is_that_of_a_real_one(task_of):
    task = task_of(WORKLOADS["plain"])
    measurement = made(task)
    workload = build(task.spec)
    workload.loss(workload.model(torch.zeros(4, 6)), torch.zeros(4, 2)).backward()
    workload.optimizer.step()
    file = io.BytesIO()
    state = {
        "model": workload.model.state_dict(),
        "optimizer": workload.optimizer.state_dict(),
    }
    torch.save(state, file)
    assert measurement.save_bytes == file.tell()


def test_a_kill_while_saving_would_leave_nothing_behind(task_of, tmp_path, monkeypatch):
    if sys.platform != "linux":
        pytest.skip("needs files without a name, as Linux has them")
    seen, save = [], torch.save

    def spy(*args, **kwargs):
        seen.append([path.name for path in tmp_path.iterdir() if path.is_file()])
        save(*args, **kwargs)

    monkeypatch.setattr(torch, "save", spy)
    made(task_of(WORKLOADS["plain"]))
    assert seen == [["tiny_workload.py"]] * SAVES


def test_the_batch_size_and_the_overrides_asked_for(task_of):
    task = task_of(WORKLOADS["plain"], batch_size=7, accumulation=3, drop_last=True)
    measurement = made(task)
    assert measurement.config.batch_size == 7
    assert measurement.config.accumulation == 3
    assert measurement.config.drop_last
    due = [update > 0 for update in measurement.update_seconds]
    assert any(due)
    assert not all(due)
    assert measurement.footprint.update_operators > 0


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision(task_of, precision):
    measurement = made(task_of(WORKLOADS["plain"], precision=precision))
    assert measurement.config.precision == precision
    assert measurement.footprint is not None


def test_a_frozen_part(task_of):
    footprint = made(task_of(WORKLOADS["frozen"])).footprint
    assert footprint.parameters == 6 * 5 + 5 + 5 * 2 + 2
    assert footprint.trainable_parameters == 5 * 2 + 2


def test_a_loader_worker(task_of):
    measurement = made(task_of(WORKLOADS["plain"], workers=1))
    assert measurement.config.workers == 1
    assert len(measurement.warmup_seconds) > 2


def test_a_step_of_its_own(task_of):
    measurement = made(task_of(WORKLOADS["gan"]))
    assert measurement.footprint.update_operators > 0
    assert len(measurement.update_seconds) == len(measurement.step_seconds)
    assert len(measurement.eval_batch_seconds) > 0


def test_an_optimizer_that_evaluates_the_loss(task_of):
    measurement = made(task_of(WORKLOADS["closure"], accumulation=2))
    assert measurement.update_seconds == ()
    assert measurement.footprint.flops > 0


def test_a_compiled_model_meets_every_size_of_batch_before_it_is_timed(task_of, monkeypatch):
    """50 samples are 12 batches of 4 and one of 2; 10 evaluation samples 2 of 4 and one of 2."""
    sizes = []

    def compiled(model):  # stands for torch.compile, and for the time that it takes
        model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
        return model

    monkeypatch.setattr(torch, "compile", compiled)
    plain = made(task_of(WORKLOADS["plain"]))
    measurement = made(task_of(WORKLOADS["plain"], compile=True))
    assert sizes[:2] == [4, 2]
    training = sizes[: sizes.index(2, 2)]
    assert set(training[2:]) == {4}
    assert len(plain.warmup_seconds) >= timing.MIN_WARMUP_UPDATES
    assert len(measurement.warmup_seconds) >= 2 + timing.MIN_WARMUP_UPDATES
    assert len(sizes) > len(training)  # the evaluation's come later
    sizes.clear()
    made(task_of(WORKLOADS["plain"], compile=True, drop_last=True))
    assert sizes[:2] == [4, 4]


FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize("error", [FULL, RuntimeError("unexpected pos 64 vs 0")], ids=repr)
def test_a_full_disk_costs_the_checkpoint_alone(task_of, monkeypatch, error):
    def save(*_):
        raise error

    monkeypatch.setattr(torch, "save", save)
    measurement = run_trial(task_of(WORKLOADS["plain"]))
    assert measurement.status == "ok"
    assert measurement.message == first_line(error)
    assert measurement.save_seconds == ()
    assert measurement.step_seconds
    assert measurement.footprint is not None


def test_a_counter_gives_the_joules_of_a_step(task_of, monkeypatch):
    """30 W over the steady steps, each as long as it is without restarts; none without a meter."""
    meter = SimpleNamespace(begin=lambda: None, watts=lambda: 30.0)
    task = task_of(WORKLOADS["no_evaluation"])
    monkeypatch.setattr("epochcast.profiler.trial.open_meter", lambda device, ranks: meter)
    counted = made(task)
    assert counted.step_joules == pytest.approx(30 * fmean(counted.step_seconds))
    meter.watts = lambda: None
    assert run_trial(task).step_joules is None


def test_without_evaluation_data(task_of):
    measurement = made(task_of(WORKLOADS["no_evaluation"]))
    assert measurement.eval_samples == 0
    assert measurement.eval_batch_seconds == measurement.eval_restart_seconds == ()


def test_batches_that_are_dictionaries(task_of):
    assert made(task_of(WORKLOADS["dictionaries"])).footprint is not None


def test_a_data_set_of_a_single_batch(task_of):
    measurement = made(task_of(WORKLOADS["plain"], batch_size=50))
    assert measurement.config.batch_size == 50
    assert len(measurement.loader_seconds) == 1


def test_equal_trials_have_equal_footprints(task_of):
    task = task_of(WORKLOADS["plain"], accumulation=3)
    assert made(task).footprint == made(task).footprint


def test_cuda(task_of):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    task = task_of(WORKLOADS["plain"])
    task = Task(
        **{f.name: getattr(task, f.name) for f in fields(task) if f.name != "spec"},
        spec=TrialSpec(workload=WorkloadSpec(target=task.spec.workload.target, device="cuda")),
    )
    memory = made(task).memory
    assert memory.device_bytes >= memory.reserved_bytes >= memory.allocated_bytes > 0


# -- what fails ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_a_measurement_of_what_was_known(task_of, name, capsys):
    text, status, message = FAILURES[name]
    task = task_of(text)
    measurement = run_trial(task, 1.5)
    assert measurement.status == status
    assert message in measurement.message
    assert "\n" not in measurement.message
    assert measurement.request == task.spec.request
    assert measurement.footprint is None
    assert "Traceback" in capsys.readouterr().err  # in the log
    built = name not in ("build", "exit")
    assert measurement.config.batch_size == 4
    assert measurement.samples == ((3 if name == "too_few_samples" else 50) if built else 0)
    assert bool(measurement.step_seconds) == (name == "late")
    assert bool(measurement.loader_seconds) == (name == "late")
    assert from_json(to_json(measurement), type(measurement)) == measurement


def test_a_device_that_is_not_there_is_the_users_error(task_of):
    task = task_of(WORKLOADS["plain"])
    for name in ("cuda:99", "tpu", "xpu", "no such thing"):
        spec = TrialSpec(workload=WorkloadSpec(target=task.spec.workload.target, device=name))
        with pytest.raises(UsageError):
            run_trial(Task(kind="trial", spec=spec, folder=task.folder))


def test_after_a_failure_the_process_can_go_on(task_of):
    run_trial(task_of(FAILURES["loss"][0]))
    load.cache_clear()
    made(task_of(WORKLOADS["plain"]))


# -- the first step -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_trial_step_that_works(task_of, name):
    result = check(task_of(WORKLOADS[name], kind="check"))
    assert (result.problem, result.trouble) == ("", "")
    assert result.samples == 50
    assert result.config.batch_size == 4
    assert result.data == "the workload's own"


@pytest.mark.parametrize("name", FAILURES)
def test_a_trial_step_that_fails(task_of, name):
    text, _, message = FAILURES[name]
    result = check(task_of(text, kind="check"))
    of_the_workload = name in ("shape", "too_few_samples", "exit")
    if name == "late":
        message = ""
    assert message in (result.problem if of_the_workload else result.trouble)
    assert (result.trouble if of_the_workload else result.problem) == ""
    assert "\n" not in result.problem + result.trouble
