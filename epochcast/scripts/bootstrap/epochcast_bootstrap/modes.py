"""What state the script is in: train or eval, without gradients, compiled, in which memory."""

from __future__ import annotations

import contextlib
import functools
import os
import sys

from epochcast_bootstrap.loaders import type_name
from epochcast_bootstrap.writing import now

LEAST_SECONDS = 0.005  # of a region without gradients that is told

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


class Modes:
    """Train and eval, regions without gradients, features.

    Args:
        watch: what they are part of.
    """

    def __init__(self, watch):
        self._watch = watch
        self._switching = False
        self._depth = 0
        self._began = 0.0
        self.regions = 0  # between eval() and train(), or without gradients: evaluations, mostly

    def hook(self, torch):
        """Watch torch."""
        self._hook_train(torch.nn.Module)
        self._hook_region(torch.no_grad)
        self._hook_region(torch.inference_mode)
        self._hook_autocast(torch)
        self._hook_compile(torch)
        self._watch.waiting.when("torch.nn.parallel.distributed", self._hook_ddp)
        self._watch.waiting.when("torch.distributed.fsdp", self._hook_fsdp)
        self._watch.waiting.when("torch.distributed.distributed_c10d", self._hook_group)

    def _hook_train(self, module):
        original, modes = module.train, self

        @functools.wraps(original)
        def train(self, mode=True):
            if modes._switching or self.training == mode:
                return original(self, mode)
            modes._switching = True
            try:
                return original(self, mode)
            finally:
                modes._switching = False
                modes._tell_mode(self, mode)

        module.train = train

    def _tell_mode(self, module, mode):
        watch = self._watch
        self.regions += bool(mode)
        watch.guarded(
            "mode",
            lambda: watch.writer.event(
                "mode", soon=True, training=bool(mode), module=type_name(module)
            ),
        )

    def _hook_region(self, kind):
        enter, leave, modes = kind.__enter__, kind.__exit__, self

        @functools.wraps(enter)
        def __enter__(self):
            modes._depth += 1
            if modes._depth == 1:
                modes._began = now()
            return enter(self)

        @functools.wraps(leave)
        def __exit__(self, *error):
            modes._depth -= 1
            if modes._depth == 0 and now() - modes._began > LEAST_SECONDS:
                modes._tell_region()
            return leave(self, *error)

        kind.__enter__, kind.__exit__ = __enter__, __exit__

    def _tell_region(self):
        watch = self._watch
        if not watch.steps.inside:  # optimizers step without gradients
            self.regions += watch.is_long(now() - self._began)
            watch.guarded(
                "no-grad", lambda: watch.writer.event("no-grad", soon=True, began=self._began)
            )

    def _hook_autocast(self, torch):
        original, watch = torch.autocast.__init__, self._watch

        @functools.wraps(original)
        def __init__(self, *args, **kwargs):
            original(self, *args, **kwargs)
            if getattr(self, "_enabled", False):
                kind = str(getattr(self, "fast_dtype", "")).replace("torch.", "")
                watch.guarded(
                    "autocast", lambda: watch.writer.once("feature", name="autocast", detail=kind)
                )

        torch.autocast.__init__ = __init__

    def _hook_compile(self, torch):
        writer = self._watch.writer

        def told(original):
            @functools.wraps(original)
            def compile(*args, **kwargs):
                detail = str(kwargs.get("mode") or kwargs.get("backend") or "")
                writer.once("feature", name="compile", detail=detail)
                return original(*args, **kwargs)

            return compile

        torch.compile = told(torch.compile)
        if hasattr(torch.nn.Module, "compile"):
            torch.nn.Module.compile = told(torch.nn.Module.compile)

    def feature_of(self, kind, name):
        """Say that a class is used, when it is."""
        original, writer = kind.__init__, self._watch.writer

        @functools.wraps(original)
        def __init__(self, *args, **kwargs):
            writer.once("feature", name=name, detail="")
            original(self, *args, **kwargs)

        kind.__init__ = __init__

    def _hook_ddp(self, module):
        self.feature_of(module.DistributedDataParallel, "ddp")

    def _hook_fsdp(self, module):
        self.feature_of(module.FullyShardedDataParallel, "fsdp")
        original, writer = getattr(module, "fully_shard", None), self._watch.writer
        if original is not None:

            @functools.wraps(original)
            def fully_shard(*args, **kwargs):
                writer.once("feature", name="fsdp", detail="2")
                return original(*args, **kwargs)

            module.fully_shard = fully_shard

    def _hook_group(self, module):
        original, watch = module.init_process_group, self._watch

        @functools.wraps(original)
        def init_process_group(*args, **kwargs):
            result = original(*args, **kwargs)
            watch.guarded("process group", lambda: self._tell_group(module))
            return result

        module.init_process_group = init_process_group
        self._watch.torch.distributed.init_process_group = init_process_group

    def _tell_group(self, module):
        size = self._watch.world_size = module.get_world_size()
        self._watch.writer.event("world", rank=module.get_rank(), size=size)


def memory_of(torch):
    """What an event says of memory."""
    found = {"resident": resident(), "resident_peak": resident_peak()}
    found["resident_peak"] = max(found.values())
    if torch is None:
        return found
    if torch.cuda.is_initialized():
        found["device"] = f"cuda:{torch.cuda.current_device()}"
        found["allocated_peak"] = torch.cuda.max_memory_allocated()
        found["reserved_peak"] = torch.cuda.max_memory_reserved()
        with contextlib.suppress(Exception):  # a driver that does not tell
            free, total = torch.cuda.mem_get_info()
            found["beside"] = max(0, total - free - torch.cuda.memory_reserved())
    elif torch.backends.mps.is_built() and torch.backends.mps.is_available():
        found["device"] = "mps"
        found["allocated_peak"] = torch.mps.current_allocated_memory()
        found["reserved_peak"] = torch.mps.driver_allocated_memory()
    return found


def resident():
    """Bytes of this process in memory; 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def resident_peak():
    """The most there were; 0 where the system does not say."""
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
