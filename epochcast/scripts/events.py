"""What a script's process reports: one record for each kind of event.

Times are seconds of ``time.monotonic``, the same clock in all processes of a machine. A *pass* is
one iteration over a loader: it trains when there is a backward call during it. On an accelerator
kernels run behind: only the last step of a block of steps is a time when the device was done.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    at: float  # when it was over


class Began(_Event, frozen=True, kw_only=True, tag="began"):
    """The first line of a process; ``at`` is when the bootstrap began in it.

    Attributes:
        pid: of the process.
        parent: process that started it.
        started: when the process started; None where the system does not say. Exact to 10 ms.
        executable: of Python.
        argv: of the process, as the script sees it; empty while it is not known.
        folder: the current one.
        rank: by the environment, None where it says nothing.
        world_size: by the environment, 1 where it says nothing.
        local_world_size: processes of them on this machine, likewise; 0 where it says nothing.
        forked: whether another Python process split in two; the workers of a loader are such.
    """

    pid: int
    parent: int
    started: float | None
    executable: str
    argv: tuple[str, ...]
    folder: str
    rank: int | None = None
    world_size: int = 1
    local_world_size: int = 0
    forked: bool = False

    @property
    def nodes(self) -> int:
        """Machines that the processes are spread over."""
        return -(-self.world_size // (self.local_world_size or self.world_size))


class TorchLoaded(_Event, frozen=True, kw_only=True, tag="torch"):
    """torch was imported; ``at`` is when the import ended.

    Attributes:
        began: when the import began.
        version: of torch.
        cuda: the version that torch was built for; None for a CPU build.
        threads: of one operator on the CPU.
        argv: of the process, now known.
        main: file of the script; None for ``-c`` and interactive use.
        module: its dotted name where it was started with ``-m``, else None.
    """

    began: float
    version: str
    cuda: str | None
    threads: int
    argv: tuple[str, ...]
    main: str | None
    module: str | None = None


class ProcessGroup(_Event, frozen=True, kw_only=True, tag="world"):
    """A process group was formed.

    Attributes:
        rank: of this process.
        size: processes in the group.
    """

    rank: int
    size: int


class Loader(_Event, frozen=True, kw_only=True, tag="loader"):
    """A loader was iterated for the first time. One made anew for each epoch keeps its number.

    Loaders are told apart by where they are iterated, type of data set, length and batch size.

    Attributes:
        number: by which passes name it, from 0, in this process.
        samples: of the data set, where processes share it of all of them; None where it has no
            length.
        batches: of a whole pass of this process, as the loader says; None where it has no length.
        batch_size: None where it does not batch or its batch sampler has no fixed size.
        drop_last: whether an incomplete batch is left out.
        workers: processes that load.
        dataset: type of the data set, ``module.Class``.
        site: where it is iterated, ``file:line`` of the script; of the library where no script is.
    """

    number: int
    samples: int | None
    batches: int | None
    batch_size: int | None
    drop_last: bool
    workers: int
    dataset: str
    site: str


class PassBegan(_Event, frozen=True, kw_only=True, tag="pass-began"):
    """The first batch of a pass was asked for.

    Attributes:
        loader: its number.
        number: of the pass, from 0, in this process.
        stage: ``train``, ``validate``, ``sanity``, … where Lightning iterates, else empty.
    """

    loader: int
    number: int
    stage: str = ""


class PassEnded(_Event, frozen=True, kw_only=True, tag="pass-ended"):
    """A pass is over.

    Attributes:
        loader: its number.
        number: of the pass.
        batches: that were drawn.
        outcome: ``exhausted``: the loader had no more; ``cut``: ended by us; ``abandoned``: by the
            script, ``at`` being when the last batch was drawn (the end was not seen).
        first_batch_at: when the first batch was there; None without one.
        last_batch_at: when the last one was.
        waited: seconds in the loader.
        steps: of optimizers while it was the pass drawn from last. One that is read ahead
            (accelerate) makes its last step after it; the block of that step names the pass.
        backwards: calls during that time.
    """

    loader: int
    number: int
    batches: int
    outcome: Literal["exhausted", "cut", "abandoned"]
    first_batch_at: float | None
    last_batch_at: float | None
    waited: float
    steps: int
    backwards: int


class Step(msgspec.Struct, frozen=True, array_like=True):
    """One optimizer step.

    Attributes:
        at: when it was over.
        optimizer: its number.
        batches: drawn in the pass so far, those drawn ahead of use included.
        backwards: calls in the process so far.
        waited: seconds in loaders in the process so far.
    """

    at: float
    optimizer: int
    batches: int
    backwards: int
    waited: float


class Steps(_Event, frozen=True, kw_only=True, tag="steps"):
    """A block of optimizer steps, one after the other in the same pass (or in none).

    Attributes:
        loader: that was last drawn from and whose pass is not over; None without one.
        pass_: its pass (``pass`` in the file); None without one.
        steps: at least one.
        skipped: how many of the process's steps so far a gradient scaler left out; they are among
            the steps.
        synchronized: whether the device was waited for before the last step's time was taken.
    """

    loader: int | None
    pass_: int | None = msgspec.field(name="pass")
    steps: tuple[Step, ...]
    skipped: int = 0
    synchronized: bool = False


class Backwards(_Event, frozen=True, kw_only=True, tag="backwards"):
    """A block of backward calls, in a process whose optimizer (if any) was not seen to step yet.

    Attributes:
        loader: as of ``Steps``.
        pass_: as of ``Steps``.
        steps: one for each call; ``optimizer`` is -1.
        synchronized: as of ``Steps``.
    """

    loader: int | None
    pass_: int | None = msgspec.field(name="pass")
    steps: tuple[Step, ...]
    synchronized: bool = False


class Optimizer(_Event, frozen=True, kw_only=True, tag="optimizer"):
    """An optimizer made its first step.

    Attributes:
        number: by which steps name it, from 0, in this process.
        name: its type, ``module.Class``.
        parameters: numbers that it trains (of this process, where they are sharded).
        device: of the first of them, e.g. ``cuda:0``.
        device_name: e.g. ``NVIDIA A100-SXM4-80GB``; empty where torch does not say.
        device_memory: bytes of the device; None where torch does not say.
    """

    number: int
    name: str
    parameters: int
    device: str
    device_name: str
    device_memory: int | None


class Mode(_Event, frozen=True, kw_only=True, tag="mode"):
    """``train()`` or ``eval()`` of a module changed its mode.

    Attributes:
        training: the new mode.
        module: type of the outermost module that was switched.
    """

    training: bool
    module: str


class NoGrad(_Event, frozen=True, kw_only=True, tag="no-grad"):
    """An outermost region without gradients, of at least 5 ms, is over.

    Attributes:
        began: when it began.
    """

    began: float


class Save(_Event, frozen=True, kw_only=True, tag="save"):
    """Something was saved; one inside another is part of it.

    Attributes:
        began: when it began, the device having been waited for.
        bytes: that were written, as far as seen.
        path: of the file or folder; None for a buffer.
        writer: ``torch``, ``safetensors``, ``pickle``, ``dcp``, ``jit``, ``keras``, ``lightning``,
            ``transformers`` or ``accelerate``.
    """

    began: float
    bytes: int
    path: str | None
    writer: str


class SaveRenamed(_Event, frozen=True, kw_only=True, tag="save-renamed"):
    """What was saved last was put in place under another name.

    Attributes:
        path: that it has now, absolute.
    """

    path: str


class Memory(_Event, frozen=True, kw_only=True, tag="memory"):
    """Memory at a moment; peaks are since the process began (torch's are never reset by us).

    Attributes:
        phase: that ends here.
        resident: bytes of the process in memory.
        resident_peak: the most that there were.
        allocated_peak: most bytes of tensors on the device; None without an accelerator.
        reserved_peak: most bytes that the allocator held.
        device: e.g. ``cuda:0``; empty for the CPU.
        beside: bytes of the device that are given away, but not by its allocator: the driver's
            context and libraries, and other processes; None where that is not known.
    """

    phase: Literal["startup", "training", "evaluation", "save", "loop", "end"]
    resident: int
    resident_peak: int
    allocated_peak: int | None = None
    reserved_peak: int | None = None
    device: str = ""
    beside: int | None = None


class Feature(_Event, frozen=True, kw_only=True, tag="feature"):
    """Something that the script uses or does, mostly said once for each name and detail.

    Attributes:
        name: ``grad-scaler``, ``autocast``, ``compile``, ``lightning``, ``transformers``,
            ``keras``, ``accelerate``, ``epochcast`` (it follows a plan), ``ddp``, ``fsdp``,
            ``endless-next``; ``fetched``: a loader of
            which single batches are taken; ``trained``, each time a framework has trained; …
        detail: e.g. the data type of autocast, the version of the framework, a loader's number.
    """

    name: str
    detail: str = ""


class Declared(_Event, frozen=True, kw_only=True, tag="declared"):
    """What a framework was told about its training; None where it does not know.

    Attributes:
        framework: ``lightning``, ``transformers`` or ``keras``.
        epochs: of the whole training.
        steps: of the whole training, where they limit it.
        batches: of an epoch, where the framework knows them or is told to end after so many.
        accumulate: batches of an optimizer step.
    """

    framework: str
    epochs: float | None = None
    steps: int | None = None
    batches: int | None = None
    accumulate: int = 1


class Sources(_Event, frozen=True, kw_only=True, tag="sources"):
    """Files of Python that the script consists of: the script and modules beside it.

    Attributes:
        files: absolute paths, those not said before in this process.
    """

    files: tuple[str, ...]


class Wrote(_Event, frozen=True, kw_only=True, tag="wrote"):
    """A file or folder is about to be changed (and may then not be, where that fails).

    To put things back go through all such events of all processes from the latest to the earliest.

    Attributes:
        kind: ``created``: it was not there; ``changed``: its former content is at ``kept``;
            ``appended``: its former content is its first ``size`` bytes; ``removed``: was there,
            is at ``kept``; ``renamed``: it is at ``target`` from now on; ``folder-created``;
            ``folder-removed``: it was empty; ``touched``: times or permissions alone.
        path: absolute, without links.
        target: of a rename, else empty.
        kept: where the former content is; empty where there is none or it could not be kept.
        size: bytes that it had; None where it was not there.
        permissions: its mode bits; None where it was not there.
        times: when it was read and changed, nanoseconds since 1970; None where it was not there.
        folder_times: the same of the folder that it is in; None where that was said before.
        link: where the path was a symbolic link that is removed or replaced: what it points to.
    """

    kind: Literal[
        "created",
        "changed",
        "appended",
        "removed",
        "renamed",
        "folder-created",
        "folder-removed",
        "touched",
    ]
    path: str
    target: str = ""
    kept: str = ""
    size: int | None = None
    permissions: int | None = None
    times: tuple[int, int] | None = None
    folder_times: tuple[int, int] | None = None
    link: str | None = None


class NotKept(_Event, frozen=True, kw_only=True, tag="not-kept"):
    """What cannot be put back, e.g. because it is too large to copy or a program was started.

    Attributes:
        what: a path, or a command.
        reason: in words.
    """

    what: str
    reason: str


class Refused(_Event, frozen=True, kw_only=True, tag="refused"):
    """Something that would have left the machine was not done.

    Attributes:
        what: e.g. ``huggingface_hub.upload_folder``.
    """

    what: str


class Traced(_Event, frozen=True, kw_only=True, tag="traced"):
    """A torch.profiler trace was written.

    Attributes:
        began: when tracing began.
        path: of the file, a Chrome trace.
        steps: of optimizers in it.
    """

    began: float
    path: str
    steps: int


class Failed(_Event, frozen=True, kw_only=True, tag="failed"):
    """The bootstrap met an error of its own, and left the script alone.

    Attributes:
        where: what it was doing.
        error: in words.
    """

    where: str
    error: str


class Ending(_Event, frozen=True, kw_only=True, tag="ending"):
    """The bootstrap ends the script: a miniature is over, or (``asked``) a stop was asked for.

    Attributes:
        why: ``epochs``: as many as wanted; ``steps``: of a loop; ``asked``: by the stop file.
        attempt: the first to third time; the fourth ends the process at once. 0: a framework was
            told to stop where its epoch ends, and the script goes on to its own end.
    """

    why: Literal["epochs", "steps", "asked"]
    attempt: int = 1


class Ended(_Event, frozen=True, kw_only=True, tag="ended"):
    """The last line of a process that ended in an orderly way.

    Attributes:
        why: ``exit``: by itself; ``ending``: after ``Ending``; ``killed-itself``: ended at once by
            the bootstrap, after the script had swallowed three endings; ``error``: an exception
            of the script; ``exec``, where the process became another program.
        error: its type and first line, else empty.
    """

    why: Literal["exit", "ending", "killed-itself", "error", "exec"]
    error: str = ""


Event = (
    Began
    | TorchLoaded
    | ProcessGroup
    | Loader
    | PassBegan
    | PassEnded
    | Steps
    | Backwards
    | Optimizer
    | Mode
    | NoGrad
    | Save
    | SaveRenamed
    | Memory
    | Feature
    | Declared
    | Sources
    | Wrote
    | NotKept
    | Refused
    | Traced
    | Failed
    | Ending
    | Ended
)
