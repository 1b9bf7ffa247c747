"""Passes over loaders: what is drawn, how long it is waited for, and where a miniature ends one.

    iter(loader)      opened: which loader is it? (nothing is said: Keras opens one an epoch early)
    next(iterator)    first: PassBegan; the end of the script where it was the last wanted epoch
         ⋮            due? cut: StopIteration, the loader's length stays what it is
    StopIteration     exhausted            iterator dropped, or opened anew: abandoned

Loaders are told apart by where they are iterated, type of data set, length and batch size: Keras
makes a new one for each epoch, Trainer for each evaluation, and ``id()`` would be used again.
"""

from __future__ import annotations

import functools
import math
import os
import sys
import threading
import weakref
import zlib

from epochcast_bootstrap.sites import may_end_early, site_of
from epochcast_bootstrap.writing import now, number_of

SETTLED = 3  # batches after which the clock of a pass starts: compiling, first touch are over
LEAST_STEPS = 3  # of optimizers in a pass that is cut
MORE_EPOCHS = 5  # times as many are let pass where they are too short to tell anything
PATIENCE = 2  # times its seconds a pass goes on where no step boundary comes
FETCHES = (
    3  # passes of one batch each, after which a loader is one that single batches are taken of
)
FETCH_STEPS = 10  # at most, from one of them to the next
MARK = "_epochcast_pass"


class KnownLoader:
    """A loader, as told apart from others."""

    def __init__(self, number, key, batches):
        self.number, self.key = number, key
        self.length = batches
        self.passes = 0
        self.epochs = 0  # passes that trained
        self.seconds = 0.0  # of them
        self.fetches, self.fetched_at = 0, 0  # batches taken one at a time; steps at the last one

    @property
    def is_fetched(self):
        """Whether it feeds steps by ``next(iter(loader))``: such passes are no news."""
        return self.fetches >= FETCHES


class OpenPass:
    """One iteration over a loader, from when it begins until it is over."""

    def __init__(self, seen, opening):
        self.seen = seen
        self.number = None
        self.began = None
        self.batches = 0
        self.first_at = self.last_at = None
        self.waited = opening  # seconds
        self.steps = self.backwards = 0  # while it was the one drawn from last
        self.backwards_before = 0
        self.step_at = None  # the end of its last step
        self.step_count = 0  # steps of the process when it was last drawn from
        self.clock = None
        self.stride = 1  # batches of an optimizer step
        self.batches_at_step = None
        self.agreed = None  # batches, where processes train together
        self.refused = False  # the script does not take an early end
        self.outcome = None  # once it is over
        self.paused_at = None  # when another pass began inside it, such as an evaluation
        self.dropped = None  # weak reference to the iterator, kept for its callback

    def resume(self, at):
        """It goes on: its clock stood still."""
        if self.clock is not None:
            self.clock += at - self.paused_at
        self.paused_at = None


class Loaders:
    """All passes of this process.

    Args:
        watch: what they are part of.
    """

    def __init__(self, watch):
        self._watch = watch
        self._seen = {}
        self._number = 0
        self._open = []  # passes that are not over; the last one was drawn from last
        self.last_trained = None  # the pass that was over last, if it trained
        self.framework_cuts = False  # while Lightning decides itself where a pass ends

    @property
    def current(self):
        """The pass that was drawn from last and is not over."""
        return self._open[-1] if self._open else None

    def stepping(self):
        """The pass that a step belongs to.

        A loader that is read ahead (accelerate) is exhausted before its last step.
        """
        last = self.last_trained
        if last is not None and last.stride * last.steps < (last.batches_at_step or 0):
            return last
        return self.current

    def hook(self, module):
        """Watch the loaders of ``torch.utils.data.dataloader``, or of another that has the same."""
        for name in ("_BaseDataLoaderIter", "_StatefulBaseDataLoaderIter"):
            if hasattr(module, name):
                self._hook_next(getattr(module, name))
        for name in ("DataLoader", "StatefulDataLoader"):
            kind = getattr(module, name, None)
            if kind is not None and "__iter__" in vars(kind):
                self._hook_iter(kind)

    def _hook_iter(self, kind):
        original, loaders, watch = kind.__iter__, self, self._watch

        @functools.wraps(original)
        def __iter__(self):
            began = now()
            iterator = original(self)
            try:
                loaders.opened(self, iterator, now() - began, sys._getframe(1))
            except Exception as error:  # noqa: BLE001
                watch.writer.failed("iter(loader)", error)
            return iterator

        kind.__iter__ = __iter__

    def _hook_next(self, kind):
        original, loaders, watch = kind.__next__, self, self._watch

        @functools.wraps(original)
        def __next__(self):
            this = getattr(self, MARK, None)
            if this is None or this.outcome is not None:
                if this is not None and this.outcome == "cut":
                    raise StopIteration
                return original(self)
            began = now()
            try:
                cut = loaders.before(this, began, sys._getframe(1))
            except Exception as error:  # noqa: BLE001
                watch.writer.failed("next(loader)", error)
                cut = False
            if cut:
                loaders.end(this, "cut", None, self)
                raise StopIteration
            try:
                batch = original(self)
            except StopIteration:
                loaders.end(this, "exhausted", now())
                raise
            try:
                loaders.after(this, began)
            except Exception as error:  # noqa: BLE001
                watch.writer.failed("a batch", error)
            return batch

        kind.__next__ = __next__

    def opened(self, loader, iterator, seconds, frame):
        """A loader is iterated.

        Args:
            loader: of torch.
            iterator: over it; the same as before where workers are persistent.
            seconds: that this took.
            frame: from where.
        """
        if self._watch.in_loader_worker():
            return
        former = getattr(iterator, MARK, None)
        if former is not None and former.outcome is None:
            self.end(former, "abandoned", None)
        this = OpenPass(self._identify(loader, frame), seconds)
        setattr(iterator, MARK, this)
        this.dropped = weakref.ref(iterator, lambda _: self._drop(this))

    def _drop(self, this):
        if this.outcome is None:
            self.end(this, "abandoned", None)

    def close(self):
        """The process ends: so do its passes."""
        for this in list(self._open):
            self._drop(this)

    def _identify(self, loader, frame):
        described = describe(loader)
        site, through = site_of(frame)
        way = self._watch.stage() or through  # Lightning opens the first one elsewhere
        key = (site, way, described["dataset"], described["samples"], described["batch_size"])
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = KnownLoader(len(self._seen), key, described["batches"])
            self._watch.writer.event("loader", number=seen.number, site=site, **described)
        return seen

    def before(self, this, at, frame):
        """A batch is asked for; whether the pass ends here instead.

        Args:
            this: the pass.
            at: now.
            frame: that asks.
        """
        watch = self._watch
        if watch.ending.why or self._is_one_too_many(this):
            if threading.get_ident() in (watch.steps.thread, threading.main_thread().ident):
                watch.finish("epochs")  # does not return
            watch.finish_later("epochs")
        if this.number is None:
            self._begin(this, at)
        if this.paused_at is not None:
            this.resume(at)
        if not watch.miniature or self.framework_cuts or not self.is_due(this, at):
            return False
        if not may_end_early(frame):
            this.refused = True
            watch.writer.once("feature", name="endless-next", detail=this.seen.key[0])
        return not this.refused

    def _is_one_too_many(self, this):
        first = not this.batches and this.seen.epochs
        return self._watch.miniature and first and self.has_enough()

    def has_enough(self):
        """Whether as many miniature epochs were made as are wanted."""
        if not self._seen:
            return False
        settings, most = self._watch.settings, max(self._seen.values(), key=lambda s: s.epochs)
        if most.epochs < settings["epochs"]:
            return False
        if most.epochs >= MORE_EPOCHS * settings["epochs"]:
            return True
        return self._all_say(most.epochs, most.seconds >= settings["pass_seconds"])

    def _all_say(self, epochs, enough):
        """Whether so many epochs are enough: processes that train together end after the same.

        Args:
            epochs: that were made.
            enough: for this process.
        """
        if self._watch.world_size == 1:
            return enough
        if not self.is_on_one_machine():
            return True  # other machines see no file of ours
        path = os.path.join(self._watch.settings["folder"], f"epochs-{epochs}.agreed")
        return bool(agree(path, int(enough)))

    def _begin(self, this, at):
        watch = self._watch
        this.number, self._number = self._number, self._number + 1
        this.began = at
        this.backwards_before = watch.steps.backwards
        this.seen.passes += 1
        if self._open:
            self._open[-1].paused_at = at
        self._open.append(this)
        if this.seen.is_fetched:
            return
        watch.writer.event(
            "pass-began",
            soon=True,
            at=at,
            loader=this.seen.number,
            number=this.number,
            stage=watch.stage(),
        )

    def after(self, this, began):
        """A batch was drawn."""
        at = now()
        this.batches += 1
        this.waited += at - began
        self._watch.steps.waited += at - began
        this.last_at = at
        this.step_count = self._watch.steps.count
        self.last_trained = None
        if this.first_at is None:
            this.first_at = at
        if this.batches == SETTLED:
            this.clock = self._watch.device_time() if self._watch.miniature else at
        if self._open and self._open[-1] is not this and this in self._open:
            self._open.remove(this)
            self._open.append(this)

    def trains(self, this):
        """Whether there was a backward call during a pass."""
        return self._watch.steps.backwards > this.backwards_before

    def is_due(self, this, at, ahead=0):
        """Whether a pass has lasted long enough and stands on the boundary of a step.

        Args:
            this: the pass.
            at: now.
            ahead: batches that will still be drawn.
        """
        if this.refused or this.clock is None:
            return False
        settings = self._watch.settings
        if this.batches < settings["least_batches"]:
            return False
        trains = self.trains(this)
        stepping = trains and self._watch.steps.count > 0
        seconds = settings["pass_seconds" if trains else "evaluation_seconds"]
        if self._watch.world_size > 1:
            known = not stepping or this.steps >= LEAST_STEPS  # how many batches a step takes
            return known and self._is_agreed(this, seconds, ahead)
        spent = at - this.clock
        if spent < seconds:
            return False
        if not stepping or spent > PATIENCE * seconds:
            return True
        return this.steps >= LEAST_STEPS and (this.batches + ahead) % this.stride == 0

    def _is_agreed(self, this, seconds, ahead):
        """Processes that train together end by count, of which the first says how many."""
        if this.agreed is None:
            each = (self._watch.device_time() - this.clock) / (this.batches - SETTLED or 1)
            wanted = this.batches + math.ceil(seconds / max(each, 1e-6))
            wanted = math.ceil(wanted / this.stride) * this.stride
            this.agreed = self._agree(this, wanted)
        return this.batches + ahead >= this.agreed

    def is_on_one_machine(self):
        """Whether all processes that train together are here."""
        size = self._watch.world_size
        return number_of("LOCAL_WORLD_SIZE", size) == size

    def _agree(self, this, wanted):
        settings = self._watch.settings
        if not self.is_on_one_machine():
            whole = math.ceil(settings["rank_batches"] / this.stride) * this.stride
            return max(whole, this.batches)  # other machines see no file of ours
        name = f"{zlib.crc32(repr(this.seen.key).encode()):08x}-{this.seen.passes}.agreed"
        return agree(os.path.join(settings["folder"], name), wanted)

    def end(self, this, outcome, at, iterator=None):
        """A pass is over.

        Args:
            this: the pass.
            outcome: as in the event.
            at: when; None where that was not seen.
            iterator: to be left as an exhausted one, where it is cut.
        """
        this.outcome = outcome
        if this in self._open:
            self._open.remove(this)
        if this.number is None:
            return  # opened, and never drawn from
        try:
            self._ended(this, outcome, at, iterator)
        except Exception as error:  # noqa: BLE001
            self._watch.writer.failed("end of a pass", error)

    def _ended(self, this, outcome, at, iterator):
        watch = self._watch
        if hasattr(iterator, "_shutdown_workers") and not iterator._persistent_workers:
            iterator._shutdown_workers()
        if outcome == "cut" and at is None:
            at = now()
        watch.steps.drain()
        trained = this.steps > 0 or (watch.steps.count == 0 and this.backwards > 0)
        this.seen.epochs += trained
        this.seen.seconds += (now() - this.began) * trained
        if outcome == "abandoned" and this.batches == this.seen.length:
            outcome = "exhausted"  # who knows the length needs not ask once more
        self.last_trained = this if trained else None
        if self._is_fetch(this, outcome, trained):
            return
        watch.writer.event(
            "pass-ended",
            soon=True,
            at=at or max(this.last_at or this.began, this.step_at or this.began),
            loader=this.seen.number,
            number=this.number,
            batches=this.batches,
            outcome=outcome,
            first_batch_at=this.first_at,
            last_batch_at=this.last_at,
            waited=this.waited,
            steps=this.steps,
            backwards=this.backwards,
        )
        watch.after_pass(trained)

    def _is_fetch(self, this, outcome, trained):
        """Whether a pass was one batch for the next step or two, as many before it were."""
        seen, steps = this.seen, self._watch.steps.count
        fed = seen.fetches == 0 or 0 < steps - seen.fetched_at <= FETCH_STEPS
        if trained or outcome != "abandoned" or this.batches != 1 or not fed:
            seen.fetches = 0
            return False
        known = seen.is_fetched
        seen.fetches, seen.fetched_at = seen.fetches + 1, steps
        if seen.is_fetched and not known:
            self._watch.writer.event("feature", name="fetched", detail=str(seen.number))
        return known


def agree(path, wanted):
    """The number in a file; ``wanted`` is put there by who comes first.

    Args:
        path: of the file.
        wanted: by this process.
    """
    own = f"{path}.{os.getpid()}"
    with open(own, "w") as file:
        file.write(str(wanted))
    try:
        os.link(own, path)  # whole or not at all
        return wanted
    except FileExistsError:
        with open(path) as file:
            return int(file.read())
    finally:
        os.unlink(own)


def describe(loader):
    """What an event says of a loader."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    inner = getattr(batch_sampler, "sampler", None)
    counts = (length(sized) for sized in (loader.dataset, inner, loader.sampler))
    return {
        "samples": next((count for count in counts if count is not None), None),
        "batches": length(loader),
        "batch_size": whole(getattr(loader, "batch_size", None))
        or whole(getattr(batch_sampler, "batch_size", None)),
        "drop_last": bool(
            getattr(loader, "drop_last", False) or getattr(batch_sampler, "drop_last", False)
        ),
        "workers": loader.num_workers,
        "dataset": type_name(loader.dataset),
    }


def length(sized):
    """``len``, None where there is none; a loader's own note of having been asked is put back."""
    noted = "_IterableDataset_len_called"
    before = getattr(sized, noted, None)
    try:
        return whole(len(sized))
    except Exception:  # noqa: BLE001  whatever the script's own __len__ raises
        return None
    finally:
        if hasattr(sized, noted):
            setattr(sized, noted, before)


def whole(number):
    """A whole number, else None."""
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def type_name(thing):
    """``module.Class``."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"
