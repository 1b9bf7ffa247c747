"""Worker processes: real ones, and stand-ins that die or hang without the time torch takes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from epochcast.errors import EpochcastError, UsageError, WorkloadError
from epochcast.profiler import process
from epochcast.profiler.process import (
    KeptWorkers,
    WorkerDied,
    WorkerProcess,
    WorkerTimeout,
    out_of_memory_kills,
)
from epochcast.profiler.protocol import Task, TrialSpec, WorkloadSpec

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and sessions")

LONG = 60.0  # seconds; a limit that nothing here should reach
READY = '{"kind": "phase", "text": "%s"}'
DONE = '{"kind": "traced", "text": "done"}'


def task_of(target="mnist-mlp", kind="describe"):
    return Task(kind=kind, spec=TrialSpec(workload=WorkloadSpec(target=target, threads=1)))


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A worker process that runs a few lines instead of the worker's main."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def start(code):
        lines = "import os, signal, subprocess, sys, time\ntask = sys.stdin.readline()\n" + code
        monkeypatch.setattr(process, "_BOOTSTRAP", lines)
        return WorkerProcess(tmp_path / "worker.log")

    return start


def gone(pids):
    """Whether all processes have ended, waiting for them for a while."""
    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(processes, timeout=20)
    return not [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


# -- stand-ins ----------------------------------------------------------------------------------


def test_answers_and_phases(stand_in):
    phases = []
    with stand_in(
        f"print('''{READY % 'one'}'''); print('''{READY % 'two'}'''); print('''{DONE}''')"
    ) as w:
        reply = w.ask(task_of(), LONG, phases.append)
    assert (reply.kind, reply.text) == ("traced", "done")
    assert phases == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("UsageError", UsageError), ("WorkloadError", WorkloadError), ("KeyError", EpochcastError)],
)
def test_a_task_that_cannot_be_done(stand_in, name, kind):
    """The error is of the class that the worker names, if that is one of ours."""
    failed = f"""print('{{"kind": "failed", "text": "no such thing", "error": "{name}"}}')"""
    with (
        stand_in(failed) as worker,
        pytest.raises(EpochcastError, match=r"^no such thing$") as error,
    ):
        worker.ask(task_of(), LONG)
    assert type(error.value) is kind


def test_the_scratch_folder_is_the_workers_and_goes_with_it(stand_in):
    code = f"print('''{READY}''' % sys.argv[2]); print('''{DONE}'''); signal.pause()"
    phases = []
    for _ in range(2):
        with stand_in(code) as worker:
            worker.ask(task_of(), LONG, phases.append)
            assert list(Path(phases[-1]).iterdir()) == []
            (Path(phases[-1]) / "kernels").mkdir()
        assert not Path(phases[-1]).exists()
    assert phases[0] != phases[1]


@pytest.mark.parametrize(
    ("code", "exit_code", "reason"),
    [
        ("os._exit(3)", 3, "the worker process ended with exit code 3"),
        ("sys.exit()", 0, "the worker process ended with exit code 0"),
        ("1 / 0", 1, "the worker process ended with exit code 1"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -11, "the worker process was ended by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", -9, "the worker process was ended by SIGKILL"),
        ("os.abort()", -6, "the worker process was ended by SIGABRT"),
    ],
)
def test_a_worker_that_ends(stand_in, code, exit_code, reason):
    with stand_in(code) as worker, pytest.raises(WorkerDied) as died:
        worker.ask(task_of(), LONG)
    assert died.value.exit_code == exit_code
    assert died.value.reason == reason


def test_an_answer_given_before_the_end_counts(stand_in):
    with stand_in(f"print('''{DONE}''', flush=True); os._exit(3)") as worker:
        assert worker.ask(task_of(), LONG).text == "done"
        with pytest.raises(WorkerDied) as died:
            worker.ask(task_of(), LONG)
    assert died.value.exit_code == 3


def test_a_kept_worker_goes_on_until_it_fails(stand_in, tmp_path):
    problem = '{"kind": "counted", "problem": "no"}'
    code = f"""
for answer in ('{DONE}', '{DONE}', '{problem}'):
    print(answer, flush=True)
    sys.stdin.readline()
"""
    stand_in(code).kill()
    pids = []
    with KeptWorkers(tmp_path) as workers:
        for _ in range(4):
            with workers.start("count") as worker:
                worker.ask(task_of(), LONG)
                pids.append(worker._process.pid)
        assert workers.start("count") is worker
        assert workers.start("other") is not worker
        assert gone(pids[:1])  # whose third answer was a problem
    assert pids[0] == pids[1] == pids[2] != pids[3]
    assert gone(pids)


def test_a_worker_whose_child_holds_the_pipe_open(stand_in):
    """As the data loader's forked workers do."""
    code = "os.fork() or (signal.pause(), os._exit(0)); os._exit(5)"
    with stand_in(code) as worker, pytest.raises(WorkerDied) as died:
        worker.ask(task_of(), LONG)
    assert died.value.exit_code == 5


def test_a_hang_is_ended_with_every_process_it_started(stand_in):
    """A child, a grandchild, an orphan whose own parent is gone already, and one that left."""
    code = f"""
child = subprocess.Popen([sys.executable, "-c", '''
import subprocess, signal
print(subprocess.Popen(["sleep", "1000"]).pid, flush=True)
signal.pause()
'''], stdout=subprocess.PIPE, text=True)
grandchild = int(child.stdout.readline())
parent = subprocess.run(["sh", "-c", "sleep 1000 >/dev/null & echo $!"], stdout=subprocess.PIPE)
leaver = subprocess.Popen(["sleep", "1000"], start_new_session=True)
pids = [os.getpid(), child.pid, grandchild, int(parent.stdout), leaver.pid]
print('''{READY}''' % (" ".join(map(str, pids))), flush=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.pause()
"""
    phases = []
    with stand_in(code) as worker:
        while not phases:  # at most as often as the machine is too slow
            with pytest.raises(WorkerTimeout):
                worker.ask(task_of(), 3.0, phases.append)
        pids = [int(pid) for pid in phases[0].split()]
        assert all(psutil.pid_exists(pid) for pid in pids)
        worker.kill()
    assert len(pids) == 5
    assert gone(pids)


def test_killing_twice_and_asking_the_dead(stand_in):
    worker = stand_in("signal.pause()")
    worker.kill()
    worker.kill()
    with pytest.raises((WorkerDied, ValueError)):
        worker.ask(task_of(), LONG)


def test_no_shell_and_nothing_of_the_users_on_the_command_line(stand_in, tmp_path):
    evil = f"$(touch {tmp_path}/a); touch {tmp_path}/b | `touch {tmp_path}/c`\n\"'"
    code = "import json; print(json.dumps({'kind': 'traced', 'text': task}), flush=True)"
    with stand_in(code + "; signal.pause()") as worker:
        heard = worker.ask(task_of(evil), LONG).text
        (line,) = [p.cmdline() for p in psutil.Process().children() if p.pid == worker._process.pid]
    assert json.loads(heard)["spec"]["workload"]["target"] == evil
    assert line[0] == sys.executable
    assert "touch" not in " ".join(line)
    assert [path.name for path in tmp_path.iterdir()] == ["worker.log"]


def test_the_workers_session_is_its_own(stand_in):
    """So that Ctrl-C in a terminal reaches the sweep alone."""
    with stand_in(f"print('''{READY}''' % os.getsid(0)); print('''{DONE}''')") as worker:
        phases = []
        worker.ask(task_of(), LONG, phases.append)
    assert int(phases[0]) != os.getsid(0)


def test_kills_for_want_of_memory_are_counted():
    assert out_of_memory_kills() >= 0


# -- real workers -------------------------------------------------------------------------------

CHATTY = """
import os, subprocess, sys
print("printed")
sys.stdout.write('{"kind": "failed", "text": "forged"}\\n')
os.write(1, b"written\\n")
print("to stderr", file=sys.stderr)
subprocess.run(["echo", "echoed"])
by_child = subprocess.run(["cat"], stdout=subprocess.PIPE, text=True).stdout
READ = sys.stdin.read() + os.read(0, 10).decode() + by_child

def workload(width: int = 3, read: str = "nothing" + READ):
    ...
"""


def test_user_code_cannot_reach_the_protocol(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "chatty.py").write_text(CHATTY)
    target = f"{tmp_path / 'chatty.py'}:workload"
    log = tmp_path / "worker.log"
    with WorkerProcess(log) as worker:
        described = worker.ask(task_of(target), LONG).described
        assert described.knobs == (("read", "nothing"), ("width", 3))
        assert described.device.kind == "cpu"
        assert described.device.threads == 1
        again = worker.ask(task_of(target), LONG).described  # the same process goes on
        assert again == described
        with pytest.raises(EpochcastError, match="has no function 'other'"):
            worker.ask(task_of(f"{tmp_path / 'chatty.py'}:other"), LONG)
        with pytest.raises(UsageError, match="no workload is called 'nosuch'"):
            worker.ask(task_of("nosuch"), LONG)
        trial = worker.ask(task_of(target, "check"), LONG).checked
        assert "must return an epochcast.Workload, but got NoneType" in trial.problem
    text = log.read_text()
    for said in ("printed", "written", "to stderr", "echoed", "forged"):
        assert said in text


HANGING = """
import os, pathlib, signal, subprocess
caches = pathlib.Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).parents[1]
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "1000"])
here = pathlib.Path(__file__).parent
(here / "scratch").write_text(str(caches))
(here / "partial").write_text(f"{os.getpid()} {child.pid}")
(here / "partial").rename(here / "pids")
while True:
    signal.pause()
"""

SWEEPING = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_process import task_of
from epochcast.profiler.process import WorkerProcess
folder = Path(sys.argv[1])
with WorkerProcess(folder / "worker.log") as worker:
    worker.ask(task_of(f"{folder / 'hanging.py'}:workload"), 1000.0)
"""


def test_when_the_sweep_is_killed_its_worker_ends(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "hanging.py").write_text(HANGING)
    parent = subprocess.Popen(
        [sys.executable, "-c", SWEEPING, str(tmp_path), str(Path(__file__).parent)]
    )
    try:
        wait_for(tmp_path / "pids", parent)
        parent.send_signal(signal.SIGKILL)
    finally:
        parent.kill()
        parent.wait()
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert gone(pids)
    assert not Path((tmp_path / "scratch").read_text()).exists()


def wait_for(path, running):
    """Until a file is there; a process that should make it must be running meanwhile."""
    deadline = time.monotonic() + LONG
    while not path.exists():
        assert time.monotonic() < deadline
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(timeout=0.05)
