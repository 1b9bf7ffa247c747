"""Everything that is watched in this process, and what follows from it."""

from __future__ import annotations

import atexit
import functools
import math
import os
import sys
import threading

from epochcast_bootstrap.ending import ScriptEnding
from epochcast_bootstrap.loaders import Loaders
from epochcast_bootstrap.modes import Modes, memory_of
from epochcast_bootstrap.saves import Saves
from epochcast_bootstrap.sites import sources
from epochcast_bootstrap.steps import Steps
from epochcast_bootstrap.waiting import Waiting
from epochcast_bootstrap.writing import Writer, now, number_of

DEFAULTS = {
    "mode": "miniature",
    "epochs": 3,
    "pass_seconds": 6.0,
    "evaluation_seconds": 3.0,
    "least_batches": 8,
    "rank_batches": 32,
    "loop_seconds": 15.0,
    "loop_steps": 24,
    "journal": False,
    "keep": "",
    "offline": True,
    "trace": "",
    "trace_steps": 5,
    "stop_file": "",
}
SETTLED_STEPS = 2  # of a loop, after which its clock starts
LONGER = 2  # times the seconds of a loop that evaluated before it, but not yet again
FORGOTTEN = 256  # steps without a batch, after which a pass is taken for none
MEMORY_SECONDS = 1.0  # between looks at memory in the middle of a pass
STOP_SECONDS = 0.5  # between looks for the stop file


class ProcessWatch:
    """The bootstrap of one process.

    Args:
        settings: as ``epochcast.scripts.border.BootstrapSettings``.
    """

    def __init__(self, settings):
        self.settings = {**DEFAULTS, **settings}
        self.miniature = self.settings["mode"] == "miniature"
        self.writer = Writer(self.settings["folder"])
        self.waiting = Waiting(self.writer.failed)
        self.ending = ScriptEnding(self.writer)
        self.loaders = Loaders(self)
        self.steps = Steps(self)
        self.modes = Modes(self)
        self.saves = Saves(self)
        self.tracing = self.journal = None
        self.torch = None
        self.world_size = number_of("WORLD_SIZE", 1) or 1
        self.stage = str  # of Lightning, "" elsewhere
        self.followed = 0  # guards of ours under way in the script
        self._stop_at, self._steps_then = None, 0
        self._torch_began = None
        self._later = ""
        self._loop_began = None
        self._loop_steps = 0
        self._loop_regions = None
        self._looked_at_memory = self._looked_for_stop = now()
        self._sources = set()
        self._modules = 0  # that were looked at

    def start(self):
        """Say that we are here, and wait for torch."""
        if self.miniature and self.settings["offline"]:
            from epochcast_bootstrap.offline import keep_offline

            self.guarded("offline", lambda: keep_offline(self))
        if self.miniature and self.settings["journal"]:
            from epochcast_bootstrap.journal import Journal

            self.journal = Journal(self)
            self.guarded("journal", self.journal.start)
        self.writer.begin()
        self.writer.drain, self.writer.forget = self.steps.drain, self.steps.forget
        self._hook_exit()
        atexit.register(self._at_exit)  # the first that is registered is the last that is called
        self.waiting.when("torch.utils.data.dataloader", self.loaders.hook)
        self.waiting.when("torch.optim.optimizer", self.steps.hook_optimizers)
        self.waiting.when("torch._dynamo.eval_frame", self.steps.hook_dynamo)
        self.waiting.when("torch", self._torch_loaded, before=self._torch_begins)

    def _hook_exit(self):
        """A script's own ``os._exit`` skips ``atexit``, and so do forked children."""
        original = os._exit

        @functools.wraps(original)
        def _exit(status):
            self.guarded("exit", self._flush)
            original(status)

        os._exit = _exit

    def _flush(self):
        self.steps.drain()
        self.writer.flush()

    def _torch_begins(self):
        self.writer.begin()  # a forked process is heard before a long import, too
        self._torch_began = now()

    def _torch_loaded(self, torch):
        self.torch = torch
        main = sys.modules.get("__main__")
        spec = getattr(main, "__spec__", None)
        file = getattr(main, "__file__", None)
        self.writer.event(
            "torch",
            began=self._torch_began or self.writer.began_at,
            version=str(torch.__version__),
            cuda=torch.version.cuda or getattr(torch.version, "hip", None),
            threads=torch.get_num_threads(),
            argv=list(getattr(sys, "argv", ())),
            main=os.path.abspath(file) if file else None,
            module=spec.name if spec is not None else None,
        )
        from epochcast_bootstrap.frameworks import wait_for_frameworks

        for what, hook in (
            ("backward", lambda: self.steps.hook_backward(torch.autograd)),
            ("scalers", self._hook_scalers),
            ("modes", lambda: self.modes.hook(torch)),
            ("saves", lambda: self.saves.hook(torch)),
            ("frameworks", lambda: wait_for_frameworks(self)),
        ):
            self.guarded(what, hook)
        if self.settings["trace"] and not number_of("RANK", 0):
            from epochcast_bootstrap.tracing import Tracing

            self.tracing = Tracing(self, self.settings["trace"], self.settings["trace_steps"])

    def _hook_scalers(self):
        scaler = getattr(self.torch.amp, "GradScaler", None)  # since 2.3; others derive from it
        self.steps.hook_scaler(scaler or self.torch.cuda.amp.GradScaler)

    def guarded(self, where, call):
        """Call, and report an error instead of raising it."""
        try:
            return call()
        except Exception as error:  # noqa: BLE001  ours, not the script's
            self.writer.failed(where, error)
            return None

    def in_loader_worker(self):
        """Whether this process loads for another."""
        worker = sys.modules.get("torch.utils.data._utils.worker")
        return worker is not None and worker.get_worker_info() is not None

    def is_compiling(self):
        """Whether torch only traces what is being called."""
        known = getattr(getattr(self.torch, "compiler", None), "is_compiling", None)  # since 2.3
        return known is not None and known()

    def synchronize(self):
        """Wait for the device, where there is one in use; whether that was done."""
        device = self.steps.device
        kind = getattr(device, "type", "cpu")
        if kind == "cpu":
            return False
        module = getattr(self.torch, kind, None)
        if module is None or not hasattr(module, "synchronize"):
            return False
        if kind == "cuda" and self.torch.cuda.is_current_stream_capturing():
            return False
        module.synchronize()
        return True

    def device_time(self):
        """Now, when the device has done what it was given."""
        self.synchronize()
        return now()

    def describe_device(self, device):
        """Name and bytes of an accelerator; empty for a CPU."""
        kind = getattr(device, "type", "cpu")
        module = getattr(self.torch, kind, None)
        if kind == "cpu" or not hasattr(module, "get_device_properties"):
            return "", None
        properties = module.get_device_properties(device)
        return properties.name, getattr(properties, "total_memory", None)

    def finish(self, why):
        """End the script from here (raises)."""
        self.guarded("sources", self.tell_sources)
        self.ending.finish(why)

    def stops_now(self):
        """Whether a framework whose epoch ends shall stop: then the script's own end is seen."""
        return self.miniature and not self.ending.why and self.loaders.has_enough()

    def finish_later(self, why):
        """End the script at the next step: a thread that only loads cannot."""
        self._later = why

    def after_step(self):
        """What follows from a step: a trace, the end of a loop, a stop that was asked for."""
        if self.tracing is not None:
            self.guarded("trace", self.tracing.after_step)
        if self.miniature:
            if self._later or self.ending.why or self.ending.by_framework:
                self.finish(self._later or self.ending.why or "epochs")
            if self.guarded("loop", self._is_loop_over):
                self.finish("steps")
        elif self.settings["stop_file"]:
            self.guarded("stop", self._look_for_stop)

    def _is_loop(self):
        """Whether steps are made in no pass, in one that cannot be cut, or that is forgotten."""
        this = self.loaders.stepping()
        return this is None or this.refused or self.steps.count - this.step_count > FORGOTTEN

    def is_long(self, seconds):
        """Whether something lasted longer than a step of a loop, as evaluations do."""
        steps = self._loop_steps - SETTLED_STEPS
        return steps <= 0 or seconds > (now() - self._loop_began) / steps

    def _is_loop_over(self):
        if not self._is_loop():
            return False
        self._loop_steps += 1
        if self._loop_steps <= SETTLED_STEPS:
            self._loop_began, self._loop_regions = now(), self.modes.regions or None
            return False
        settings = self.settings
        if self._loop_steps < settings["loop_steps"]:
            return False
        if self.world_size > 1 and not self.loaders.is_on_one_machine():
            return True  # others see no file of ours: all end after the least
        if self.world_size > 1:
            return self._is_loop_agreed()
        longer = 1 if self.modes.regions != self._loop_regions else LONGER
        return now() - self._loop_began >= settings["loop_seconds"] * longer

    def _is_loop_agreed(self):
        if not hasattr(self, "_loop_wanted"):
            from epochcast_bootstrap.loaders import agree

            each = (self.device_time() - self._loop_began) / (self._loop_steps - SETTLED_STEPS)
            more = int(self.settings["loop_seconds"] / max(each, 1e-6))
            path = os.path.join(self.settings["folder"], "loop.agreed")
            self._loop_wanted = agree(path, self._loop_steps + more)
        return self._loop_steps >= self._loop_wanted

    def _look_for_stop(self):
        passed = now() - self._looked_for_stop
        if self._stop_at is None and passed >= STOP_SECONDS:
            if os.path.exists(self.settings["stop_file"]):
                self._stop_at = self._agreed_stop((self.steps.count - self._steps_then) / passed)
            self._looked_for_stop, self._steps_then = now(), self.steps.count

    def is_asked(self, by_guard=False):
        """Whether whoever trains is to stop now; who follows a plan is asked, and no other.

        Args:
            by_guard: whether it is our own guard that wants to know.
        """
        due = self._stop_at is not None and self.steps.count >= self._stop_at
        if not due or by_guard != bool(self.followed):
            return False
        self.guarded("asked", lambda: self.writer.once("ending", why="asked", attempt=1))
        return True

    def _agreed_stop(self, speed):
        """The step at which all processes stop: those that train together must stop together.

        Args:
            speed: steps a second.
        """
        if self.world_size == 1:
            return self.steps.count
        from epochcast_bootstrap.loaders import agree

        more = math.ceil(3 * STOP_SECONDS * speed) + 1  # by then every one of them has looked
        return agree(os.path.join(self.settings["folder"], "stop.agreed"), self.steps.count + more)

    def after_block(self):
        """What follows from a block of steps."""
        if now() - self._looked_at_memory > MEMORY_SECONDS:
            self.memory("training" if self.loaders.current else "loop")

    def after_pass(self, trained):
        """What follows from the end of a pass."""
        self.memory("training" if trained else "evaluation")
        if trained:
            self.tell_sources()
        if self.tracing is not None:
            self.guarded("trace", lambda: self.tracing.after_pass(trained))

    def memory(self, phase):
        """Look at memory."""
        self._looked_at_memory = now()
        self.writer.event("memory", soon=True, phase=phase, **memory_of(self.torch))

    def tell_sources(self):
        """Files of the script that were not said yet."""
        if len(sys.modules) == self._modules:
            return
        self._modules = len(sys.modules)
        new = [file for file in sources() if file not in self._sources]
        if new:
            self._sources.update(new)
            self.writer.event("sources", files=new)

    def _at_exit(self):
        if threading.current_thread() is not threading.main_thread():
            return
        for what, call in (
            ("end of a group", self.ending.leave_group),
            ("passes", self.loaders.close),
            ("sources", self.tell_sources),
            ("memory", lambda: self.torch is not None and self.memory("end")),
            ("ended", self._say_ended),
        ):
            self.guarded(what, call)
        self.writer.close()

    def _say_ended(self):
        error = getattr(sys, "last_value", None)
        if self.ending.why:
            self.writer.event("ended", why="ending", error="")
        elif error is not None:
            first = (str(error).splitlines() or [""])[0]
            self.writer.event("ended", why="error", error=f"{type(error).__name__}: {first}"[:500])
        else:
            self.writer.event("ended", why="exit", error="")
