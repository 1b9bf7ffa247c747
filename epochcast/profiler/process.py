"""The sweep's side of a worker process: start it, ask it, notice its death, end all it began.

    sweep ── tasks ──▶ Workers.ask_each ──▶ a WorkerProcess, then the next ──▶ answers
                       RemoteWorkers.ask_each (remote.py): the same, on the nodes of a cluster

Used by the sweep without torch. No shell is involved, and no text of the user's reaches a command
line: a task travels as JSON through a pipe.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import IO, NamedTuple, Protocol, cast

import psutil

from epochcast.errors import EpochcastError, WorkloadError, named
from epochcast.profiler.protocol import Answer, Reply, Task
from epochcast.profiler.slowest import slowest_of
from epochcast.records import from_json, to_json

# Arguments: the package's folder and the worker's scratch folder; the user's code sees neither. The
# package's goes last on the path, so that it shadows nothing and a checkout that is not installed
# works too. "-c" puts the working directory first, as for the user's own python.
_BOOTSTRAP = (
    "import sys; _, package, scratch = sys.argv; del sys.argv[1:]; sys.path.append(package); "
    "from epochcast.profiler.worker import main; main(scratch)"
)
_DRAIN_SECONDS = 2.0  # for answers still in the pipe when the process has ended
_POLL_SECONDS = 0.2
GRACE_SECONDS = 2.0  # for the rank that failed first to be known: others fail of its silence


class WorkerTimeout(Exception):
    """The worker did not answer within the time it was given."""


class WorkerDied(Exception):
    """The worker ended in the middle of a task.

    Attributes:
        exit_code: as of ``subprocess``: negative for a signal.
        who: the process, in words.
    """

    def __init__(self, exit_code: int, who: str = "the worker process") -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code
        self.who = who

    @property
    def reason(self) -> str:
        """How it ended, in words."""
        if self.exit_code < 0:
            return f"{self.who} was ended by {signal.Signals(-self.exit_code).name}"
        return f"{self.who} ended with exit code {self.exit_code}"


class Worker(Protocol):
    """What answers tasks, one at a time, here or elsewhere. A context manager: leaving ends it."""

    @property
    def log(self) -> Path: ...
    def ask(
        self, task: Task, timeout: float, on_phase: Callable[[str], None] = lambda phase: None
    ) -> Reply:
        """Run a task and wait for its answer.

        Args:
            task, timeout, on_phase: as of ``WorkerProcess.ask``.
        """

    def __enter__(self) -> Worker: ...
    def __exit__(self, *_: object) -> None: ...


class WorkerProcess:
    """A fresh Python process that runs tasks one at a time. A context manager: leaving kills it.

    Args:
        log: file that takes what the process and the user's code print.

    Attributes:
        usable: whether the last task, if there was any, was answered without a problem.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.usable = True
        self._scratch = tempfile.mkdtemp(prefix="epochcast-")
        package = str(Path(__file__).parents[2])
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOTSTRAP, package, self._scratch],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C reaches the sweep alone, which ends the worker
            )
        self._input = cast("IO[str]", self._process.stdin)
        self._output = cast("IO[str]", self._process.stdout)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def ask(
        self, task: Task, timeout: float, on_phase: Callable[[str], None] = lambda phase: None
    ) -> Reply:
        """Run a task and wait for its answer.

        Args:
            task: what to do.
            timeout: seconds for the whole task.
            on_phase: called with the name of each phase the task reports.

        Raises:
            WorkerTimeout: no answer in time. The worker should be killed.
            WorkerDied: the process ended first.
            EpochcastError: the worker says that the task cannot be done.
        """
        self.usable = False
        self._send(task)
        deadline = time.monotonic() + timeout
        while True:
            reply = self._next_reply(deadline)
            if reply.kind == "failed":
                raise named(reply.error)(reply.text)
            if reply.kind != "phase":
                self.usable = not reply.problem
                return reply
            on_phase(reply.text)

    def _send(self, task: Task) -> None:
        try:
            self._input.write(to_json(task) + "\n")
            self._input.flush()
        except OSError as error:
            raise WorkerDied(self._process.wait()) from error

    def _next_reply(self, deadline: float) -> Reply:
        died_at: float | None = None
        while True:
            try:
                line = self._lines.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                line = ""
            if line:
                return from_json(line, Reply)
            now = time.monotonic()
            if line is None or (died_at is not None and now > died_at + _DRAIN_SECONDS):
                raise WorkerDied(self._process.wait())
            if died_at is None and self._process.poll() is not None:
                died_at = now  # its own children may still hold the pipe open
            if now > deadline:
                raise WorkerTimeout

    def _read(self) -> None:
        for line in self._output:
            self._lines.put(line)
        self._lines.put(None)

    def kill(self) -> None:
        """End the process and every process it started; waits until they are gone."""
        family = _family(self._process.pid)
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        if os.name == "posix":
            _kill_group(self._process.pid)
        psutil.wait_procs(family, timeout=10)
        self._process.wait()
        for pipe in (self._input, self._output):
            _close(pipe)
        shutil.rmtree(self._scratch, ignore_errors=True)


class _Heard(NamedTuple):
    """What became of a rank's task: an answer, an error, or (before that) its next phase."""

    rank: int
    what: Reply | BaseException | str

    @property
    def has_failed(self) -> bool:
        if isinstance(self.what, Reply):
            return self.what.measured is not None and self.what.measured.status != "ok"
        return isinstance(self.what, BaseException)

    @property
    def tells_least(self) -> int:
        """Of failures: memory and death are causes, the rest may be what they brought about."""
        if isinstance(self.what, Reply) and self.what.measured is not None:
            return 0 if self.what.measured.status == "oom" else 2
        return 1 if isinstance(self.what, WorkerDied) else 2


class WorkerGroup:
    """Worker processes that train together, asked and ended as one: if one fails, all do.

    A context manager: leaving kills them all.

    Args:
        log: of the first rank; the others' have its name and their number.
        size: how many there are.
        start_worker: starts a worker process that logs to a file.
    """

    def __init__(self, log: Path, size: int, start_worker: Callable[[Path], WorkerProcess]) -> None:
        self.log = log
        self._folder = tempfile.mkdtemp(prefix="epochcast-ranks-")
        self._workers: list[WorkerProcess] = []
        try:
            for rank in range(size):
                own = log.with_name(f"{log.stem}-rank-{rank}.log") if rank else log
                self._workers.append(start_worker(own))
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> WorkerGroup:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.__exit__()
        shutil.rmtree(self._folder, ignore_errors=True)

    def ask(
        self, task: Task, timeout: float, on_phase: Callable[[str], None] = lambda phase: None
    ) -> Reply:
        """Run a task on all ranks and wait for their answers; or for the first failure.

        Args:
            task: what to do.
            timeout: seconds for the whole task.
            on_phase: called with the name of each phase that the first rank reports.

        Returns:
            The slowest rank's measurement, that of a rank which failed, or the first one's answer.

        Raises:
            WorkerTimeout: one did not answer in time. The group should be killed, as after any
                failure: the others wait for it.
            WorkerDied: a process ended first.
            EpochcastError: one says that the task cannot be done.
        """
        heard: queue.SimpleQueue[_Heard] = queue.SimpleQueue()
        for rank in range(len(self._workers)):
            arguments = (rank, task, timeout, heard)
            threading.Thread(target=self._ask_one, args=arguments, daemon=True).start()
        replies: dict[int, Reply] = {}
        while len(replies) < len(self._workers):
            next_ = heard.get()
            if isinstance(next_.what, str):
                on_phase(next_.what)
            elif next_.has_failed:
                return self._first_failure(next_, heard)
            elif isinstance(next_.what, Reply):
                replies[next_.rank] = next_.what
        measured = [m for _, r in sorted(replies.items()) if (m := r.measured) is not None]
        return replace(replies[0], measured=slowest_of(measured)) if measured else replies[0]

    def _ask_one(
        self, rank: int, task: Task, timeout: float, heard: queue.SimpleQueue[_Heard]
    ) -> None:
        """Ask a rank, in a thread of its own, and say what was heard of it.

        Args:
            rank: which.
            task: of all.
            timeout: seconds for it.
            heard: takes phases of the first rank, and what came in the end.
        """
        worker, meeting = self._workers[rank], os.path.join(self._folder, "meeting")
        own = replace(task, rank=rank, meeting=meeting, log=str(worker.log) if task.log else "")
        try:
            phase = (lambda text: heard.put(_Heard(0, text))) if rank == 0 else lambda text: None
            heard.put(_Heard(rank, worker.ask(own, timeout, phase)))
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that asked
            heard.put(_Heard(rank, error))

    def _first_failure(self, failure: _Heard, heard: queue.SimpleQueue[_Heard]) -> Reply:
        """The failure that tells most of those that come within a moment.

        Raises:
            BaseException: what the rank's own worker raised.
        """
        failures, until = [failure], time.monotonic() + GRACE_SECONDS
        with suppress(queue.Empty):
            while (left := until - time.monotonic()) > 0 and len(failures) < len(self._workers):
                failures += [x for x in [heard.get(timeout=left)] if x.has_failed]
        rank, what = min(failures, key=lambda x: x.tells_least)
        who = f"rank {rank} of {len(self._workers)}"
        if isinstance(what, WorkerDied):
            raise WorkerDied(what.exit_code, who)
        if isinstance(what, BaseException):
            raise what
        if isinstance(what, str) or what.measured is None:
            raise EpochcastError(f"{who} failed without a reason")
        return replace(
            what, measured=replace(what.measured, message=f"{who}: {what.measured.message}")
        )


class Workers:
    """Where tasks are done: in worker processes on this machine, each with a log of its own.

    Args:
        logs: folder of the logs.
        start_worker: starts a worker process that logs to a file.
    """

    def __init__(
        self, logs: Path, start_worker: Callable[[Path], WorkerProcess] = WorkerProcess
    ) -> None:
        self.logs = logs
        self.start_worker = start_worker

    def ask_each(
        self,
        name: str,
        tasks: Iterable[Task | None],
        timeout: float,
        on_phase: Callable[[Task, str], None],
    ) -> Iterator[Answer]:
        """Do tasks, one after the other in one process; after a failure in the next, and those of
        several ranks in processes that train together.

        A task is taken when it can begin, so what is taken may depend on the answers so far.

        Args:
            name: what the workers are for.
            tasks: in order; None where the next one waits for an answer, which here has come.
            timeout: seconds for each.
            on_phase: called with a task and the name of each phase that it reports.
        """
        left = (task for task in tasks if task is not None)
        task = next(left, None)
        while task is not None:
            with self._start_ranks(name, ranks := task.spec.ranks) as worker:
                for number in count():
                    task = replace(task, trial=number, log=str(worker.log))
                    answer = answer_of(worker, task, timeout, partial(on_phase, task))
                    yield answer
                    task = next(left, None)
                    if task is None or not answer.is_good or task.spec.ranks != ranks:
                        break

    def start(self, name: str) -> Worker:
        """A fresh worker; ``name`` is what it is for, as its log is called.

        Raises:
            EpochcastError: the system refuses a log file or a process.
        """
        try:
            return self.start_worker(self.new_log(name))
        except OSError as error:  # no space for the log, no memory for a process
            raise EpochcastError(f"cannot start a worker process: {error}") from error

    def _start_ranks(self, name: str, ranks: int) -> Worker:
        """Fresh workers that train together; a plain one where there are no ranks.

        Raises:
            EpochcastError: the system refuses a log file or a process.
        """
        if not ranks:
            return self.start(name)
        try:
            return WorkerGroup(self.new_log(f"{name}-of-{ranks}"), ranks, self.start_worker)
        except OSError as error:
            raise EpochcastError(f"cannot start {ranks} worker processes: {error}") from error

    def new_log(self, name: str) -> Path:
        """A path that no log has."""
        number = len(list(self.logs.glob(f"{name}*.log")))
        return self.logs / (f"{name}-{number}.log" if number else f"{name}.log")


def answer_of(
    worker: Worker, task: Task, timeout: float, on_phase: Callable[[str], None]
) -> Answer:
    """Ask a worker; whatever comes of it is an answer.

    Args:
        worker: a process that has not failed.
        task, timeout, on_phase: as of ``WorkerProcess.ask``.
    """
    kills = out_of_memory_kills()
    try:
        return Answer(task=task, reply=worker.ask(task, timeout, on_phase))
    except WorkerTimeout:
        return Answer(task=task, status="timeout", message=f"no result after {timeout:.0f} s")
    except WorkerDied as error:
        code, why = error.exit_code, error.reason
        if code == -signal.SIGKILL and out_of_memory_kills() > kills:
            why = f"{why}: the system ran out of memory"
            return Answer(task=task, status="oom", message=why, exit_code=code)
        return Answer(task=task, status="crashed", message=why, exit_code=code)
    except EpochcastError as error:
        return Answer(task=task, message=str(error), error=type(error).__name__)


class KeptWorker(WorkerProcess):
    """One that goes on to the next task until one fails; ``KeptWorkers`` ends it."""

    def __exit__(self, *_: object) -> None:
        if not self.usable:
            self.kill()


class KeptWorkers(Workers):
    """Of each name one worker, for one question after another: torch and the user's code are
    imported once. A context manager: leaving ends them all.

    Args:
        logs: folder of the logs.
    """

    def __init__(self, logs: Path) -> None:
        super().__init__(logs, KeptWorker)
        self._kept: dict[str, KeptWorker] = {}

    def start(self, name: str) -> Worker:
        """The worker of that name, a fresh one where it failed.

        Raises:
            EpochcastError: the system refuses a log file or a process.
        """
        kept = self._kept.get(name)
        if kept is None or not kept.usable:
            kept = self._kept[name] = cast("KeptWorker", super().start(name))
        return kept

    def __enter__(self) -> KeptWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._kept.values():
            worker.kill()


def ask_or_refuse(worker: Worker, task: Task, timeout: float) -> Reply:
    """Ask what cannot be gone on without.

    Args:
        worker: a process that has not failed.
        task: what to ask.
        timeout: seconds for it.

    Raises:
        WorkloadError: no answer in time, or the worker died of it.
    """
    try:
        return worker.ask(task, timeout)
    except WorkerTimeout as error:
        raise WorkloadError(f"not ready after {timeout:.0f} s{_see(worker.log)}") from error
    except WorkerDied as error:
        raise WorkloadError(f"{error.reason}{_see(worker.log)}") from error


def _see(log: Path) -> str:
    return f"; see {log}" if log.is_file() else ""


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return []


def _kill_group(pid: int) -> None:
    """Reach children whose parent is already gone; the session's id is the worker's process id."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _close(pipe: IO[str]) -> None:
    try:
        pipe.close()
    except OSError:
        return


def out_of_memory_kills() -> int:
    """Processes that Linux ended for want of memory so far, in this control group or at all."""
    for path, name in (("/sys/fs/cgroup/memory.events", "oom_kill"), ("/proc/vmstat", "oom_kill")):
        counts = _read_counts(Path(path))
        if name in counts:
            return counts[name]
    return 0


def _read_counts(path: Path) -> dict[str, int]:
    try:
        lines = (line.split() for line in path.read_text().splitlines())
        return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}
    except OSError:
        return {}
