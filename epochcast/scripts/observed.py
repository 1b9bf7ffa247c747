"""From the events of a script to a measurement: what was seen, and what is assumed. Pure.

    symbol   meaning                                                    becomes
    t        seconds of a batch: blocks of steps of steady passes       step_seconds
    F        of an epoch beside its steps, evaluations and saves        epoch_fixed_seconds
    a, e     of an evaluation: until its first batch, and each batch    eval_…_seconds
    s        of a checkpoint                                            save_seconds
    T₀       of the first miniature epoch, of n₀ batches                warmup_seconds
    S, Z     start until the first step; after the last epoch           build_, finish_seconds
    n, N     batches of a miniature pass, and of a whole one

    F  = epoch − n·t − evaluations − saves                              of steady epochs
    surcharge = T₀ − (n₀·t + F + evaluations + saves)                   of the first one
    a real run: S + surcharge + E·(N·t + F + evaluations + saves) + Z

A batch is what prices a step, so that a second optimizer, a line search or accumulation makes no
difference; where there is no loader, an optimizer step is; without an optimizer a backward call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import ceil
from pathlib import Path
from statistics import fmean, median
from typing import Any

from epochcast.costmodel.epoch import division_of
from epochcast.costmodel.summary import step_seconds
from epochcast.errors import EpochcastError
from epochcast.profiler.target import source_of_files
from epochcast.records import (
    Frequency,
    Measurement,
    Precision,
    RunConfig,
    Script,
    Warning_,
    make_sizes,
)
from epochcast.records.estimate import ENDLESS
from epochcast.scripts import events as e
from epochcast.scripts.command import EPOCHS, Template, own_files, processes_said
from epochcast.scripts.evaluations import Evaluations
from epochcast.scripts.frequency import frequency
from epochcast.scripts.hardware import device_of, memory_peaks
from epochcast.scripts.timeline import (
    Events,
    Interval,
    Occasion,
    Pass,
    ProcessTimeline,
    leading_process,
    of_kind,
)

BLOCKS = 16  # of a pass: enough to see noise, and long enough to hold what is done now and then
SKIPPED = 3  # steps of a run that has one pass: those that warm up
_DTYPES: Mapping[str, Precision] = {"bfloat16": "bf16", "bf16": "bf16", "float16": "fp16"}


class NothingSeen(EpochcastError):
    """The events do not make a measurement; the message says what was missing."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is known of a trial without its events.

    Attributes:
        workload: what the script is called.
        template: of the command.
        values: that were put into it, as they were written.
        request: fingerprint of what was started.
        folder: where the command was started.
        started, ended: moments of the command, by the clock of the events.
        machine: the CPU, for scripts that train on it: name and bytes of memory.
        steps_per_epoch, samples: of an epoch, where the user says so.
        round: which pass over all configurations.
        log: path of the command's output.
        created_at: ISO 8601.
    """

    workload: str
    template: Template
    values: Mapping[str, str]
    request: str
    folder: Path
    started: float
    ended: float
    machine: tuple[str, int]
    steps_per_epoch: int | None = None
    samples: int | None = None
    round: int = 0
    log: str | None = None
    created_at: str = ""


def measurement_of(events: Events, trial: Trial) -> Measurement:
    """The measurement of a script that trained.

    Args:
        events: of all its processes.
        trial: the command, and when it was started and had ended.

    Raises:
        NothingSeen: nothing was trained, or too little of it was seen.
    """
    pid = leading_process(events)
    if pid is None:
        raise NothingSeen(_why_nothing(events))
    return _Observation(events, ProcessTimeline(events[pid]), trial).measurement()


def _why_nothing(events: Events) -> str:
    every = [event for of_it in events.values() for event in of_it]
    if not of_kind(every, e.TorchLoaded):
        return "no process of the command has imported torch"
    if of_kind(every, e.PassBegan):
        return "a loader was iterated, but no optimizer stepped and nothing went backward"
    return "torch was imported, but no optimizer stepped and nothing went backward"


@dataclass(frozen=True)
class _Observation:
    """One trial, looked at; every property is computed once, from those above it."""

    events: Events
    timeline: ProcessTimeline
    trial: Trial

    # -- what is trained with -------------------------------------------------------------------

    @cached_property
    def loader(self) -> e.Loader | None:
        """The one that is trained with."""
        number = self.timeline.main_loader
        return None if number is None else self.timeline.loaders.get(number)

    @cached_property
    def passes(self) -> list[Pass]:
        """Of training."""
        found = [p for p in self.timeline.training if p.boundaries]
        if not found:
            raise NothingSeen("it trained, but no step was seen to its end")
        return found

    @cached_property
    def steady(self) -> list[Pass]:
        """All but the first; the only one, where there is one."""
        return self.passes[1:] or self.passes

    @cached_property
    def stride(self) -> float:
        """Batches from one step to the next that begins with new ones."""
        found = [b - a for p in self.passes for a, b in pairwise(p.drawn)]
        return float(median(found)) if found else 1.0

    def ahead(self, p: Pass) -> float:
        """Batches of a pass that were drawn before they were used."""
        return max(0.0, p.drawn[0] - self.stride) if p.drawn else 0.0

    @cached_property
    def world_size(self) -> int:
        worlds = of_kind(self.timeline.events, e.ProcessGroup)
        began = of_kind(self.timeline.events, e.Began)
        return worlds[-1].size if worlds else (began[0].world_size if began else 1)

    @property
    def nodes(self) -> int:
        """Machines of the world, as the launcher said; its processes elsewhere are not seen."""
        began = of_kind(self.timeline.events, e.Began)
        return min(self.world_size, began[0].nodes) if began else 1

    @cached_property
    def batches_an_epoch(self) -> int | None:
        """Of a whole pass on one device, as its loader says or as was seen; None if unknown."""
        if self.trial.steps_per_epoch is not None:
            return self.trial.steps_per_epoch * self.accumulation
        if self._left_after is not None:
            return self._left_after
        if self.loader is not None and self.loader.batches is not None:
            return self.loader.batches
        whole = [p.batches for p in self.passes if p.exhausted]
        return max(whole) if whole and self.loader is not None else None

    @cached_property
    def _left_after(self) -> int | None:
        """Batches of a pass that the script itself left before its end; None where it did not.

        Where a pass beside it was ended by us at the same step, such as of a loader that is zipped
        with it, that is why it was left.
        """
        followed = self.passes[:-1]  # after the last one the run may have been told to end
        left = [p for p in followed if p.left and not self._is_cut_beside(p)]
        if not left or len(left) < len(followed):
            return None
        return round(median(p.drawn[-1] - self.ahead(p) for p in left))

    def _is_cut_beside(self, p: Pass) -> bool:
        steps, at = self.timeline.steps_before, p.interval.ended
        return any(
            one.loader != p.loader
            and one.ended is not None
            and not (one.left or one.exhausted)
            and one.began < at
            and steps(one.ended) == steps(at)
            for one in self.timeline.passes
        )

    @cached_property
    def told(self) -> dict[str, Any]:
        """Settings, as the values in the command say."""
        return dict(self.trial.template.settings(self.trial.values))

    @cached_property
    def accumulation(self) -> int:
        return self.told.get("accumulation") or max(1, round(self.stride))

    @cached_property
    def batch_size(self) -> int:
        """As the command says; else as the loader does."""
        if "batch_size" in self.told:
            return int(self.told["batch_size"])
        loader = self.loader or self.timeline.fetched
        if loader is None:
            return 1
        if loader.batch_size is None and loader.samples and loader.batches:
            return max(1, ceil(loader.samples / self.world_size / loader.batches))
        return loader.batch_size or 1

    @cached_property
    def config(self) -> RunConfig:
        """How it runs. ``drop_last`` is as the loader says, if that agrees with its length."""
        loader = self.loader or self.timeline.fetched
        features = {x.name: x.detail for x in of_kind(self.timeline.events, e.Feature)}
        dtype = features.get("autocast", "").removeprefix("torch.")
        return RunConfig(
            batch_size=self.batch_size,
            accumulation=self.accumulation,
            precision=self.told.get("precision", _DTYPES.get(dtype, "fp32")),
            compiled="compile" in features,
            workers=self.told.get("workers", 0 if loader is None else loader.workers),
            world_size=self.world_size,
            nodes=self.nodes,
            drop_last=loader is not None and loader.drop_last,
            sizes=make_sizes(self.trial.template.knobs(self.trial.values)),
            eval_batch_size=self.evaluations.own_batch_size,
        )

    @cached_property
    def samples(self) -> tuple[int, RunConfig]:
        """Of an epoch, so that it is divided into as many batches as it has; and the setting of
        ``drop_last`` that goes with them."""
        config, batches = self.config, self.batches_an_epoch
        if self.trial.samples is not None:
            return self.trial.samples, config
        if batches is None:
            return ENDLESS * config.batch_size * config.world_size, config
        known = self.loader.samples if self.loader is not None else None
        if known and self.trial.steps_per_epoch is None:
            for total in (known, known * config.world_size):
                if division_of(total, config).micro_batches == batches:
                    return total, config
        whole = batches * config.batch_size * config.world_size
        return whole, replace(config, drop_last=False)

    # -- steps ------------------------------------------------------------------------------------

    @cached_property
    def first_steady(self) -> int:
        """The boundary of steady passes from which on they are."""
        if len(self.passes) > 1:
            return 0
        return min(SKIPPED, max(0, len(self.passes[0].boundaries) - 2))

    @cached_property
    def block(self) -> int:
        """Boundaries of one sample."""
        shortest = min(len(p.boundaries) - 1 - self.first_steady for p in self.steady)
        return max(1, shortest // BLOCKS)

    @cached_property
    def blocks(self) -> list[tuple[float, float, float]]:
        """Seconds and seconds of waiting for data of a batch, and how many batches a sample has."""
        found = []
        for p in self.steady:
            boundaries = p.boundaries[self.first_steady :: self.block]
            for a, b in pairwise(boundaries):
                batches = b.batches - a.batches
                seconds = self.timeline.seconds(a.at, b.at)
                if batches > 0 and seconds > 0:
                    waited = min(seconds, max(0.0, b.waited - a.waited))
                    found.append((seconds / batches, waited / batches, float(batches)))
        return found or [self._whole_pass(p) for p in self.steady]

    def _whole_pass(self, p: Pass) -> tuple[float, float, float]:
        """Of a pass of one step: it cannot be told from what comes before it."""
        batches = max(1.0, p.boundaries[0].batches - self.ahead(p))
        seconds = self.timeline.seconds(p.began, p.boundaries[0].at)
        if seconds <= 0 or self._steps_seen == 1:  # that is all of the warm-up, and nothing else
            raise NothingSeen("it made one step and ended: too little to measure")
        return seconds / batches, 0.0, batches

    @cached_property
    def one_step_passes(self) -> bool:
        """Whether a pass is a single step, with everything that comes before it."""
        return all(len(p.boundaries) < 2 for p in self.steady)

    # -- evaluations ------------------------------------------------------------------------------

    @cached_property
    def evaluations(self) -> Evaluations:
        own = None if self.loader is None else self.loader.batch_size or self.batch_size
        return Evaluations(self.timeline, self.batch_size, own)

    def frequency(self, occasions: Sequence[Occasion]) -> Frequency:
        """How often something is done, as ``predict`` and ``plan`` count."""
        return frequency(occasions, self.passes, self.timeline.windows, self._steps_of_an_update)

    @cached_property
    def _steps_of_an_update(self) -> float:
        """Optimizer steps in what a measurement counts as one: a GAN makes two in a batch."""
        ends = [(p.boundaries[0], p.boundaries[-1]) for p in self.passes]
        batches = sum(b.batches - a.batches for a, b in ends)
        steps = sum(b.index - a.index for a, b in ends)
        return steps * self.accumulation / batches if batches else 1.0

    # -- the rest ---------------------------------------------------------------------------------

    @cached_property
    def startup(self) -> dict[str, Any]:
        """From the start of the command to the first step, whole passes before it included."""
        first = self.timeline.first_step_began
        loaded = next((x.at for x in of_kind(self.timeline.events, e.TorchLoaded)), first)
        imports = max(0.0, min(loaded, first) - self.trial.started)
        before = [p for p in self.timeline.passes if p.began < first and not p.trains]
        build = max(0.0, first - self.trial.started - imports)
        return {"import_seconds": imports, "build_seconds": build + self._left_out(before)}

    def _left_out(self, passes: Iterable[Pass]) -> float:
        """Seconds that passes would take beyond those of their miniatures."""
        missing = (
            (self._loader_length(p) - p.batches) * p.batch_seconds
            for p in passes
            if p.batches and not (p.exhausted or p.left)
        )
        return sum(max(0.0, seconds) for seconds in missing)

    def _loader_length(self, p: Pass) -> int:
        loader = self.timeline.loaders.get(p.loader)
        return (loader.batches if loader else None) or p.batches

    @cached_property
    def finish_seconds(self) -> float:
        """After the last epoch that was seen to its end, until every process was gone."""
        windows, passes = self.timeline.windows, self.passes
        ending = self.timeline.ending
        if ending is not None:
            after = [p for p in self.timeline.passes if p.began >= ending and not p.trains]
            return max(0.0, self.trial.ended - ending) + self._left_out(after)
        last = passes[-1].interval.ended
        if windows and len(windows) == len(passes):
            last = max(last, windows[-1].ended)
        return self.timeline.seconds(last, max(last, self.trial.ended))

    def fixed_seconds(self, t: float) -> list[float]:
        """Of each steady epoch beside its steps, evaluations and saves.

        Args:
            t: seconds of a batch.
        """
        if self.loader is None:
            return []
        windows = self.timeline.windows
        pairs = list(zip(self.passes, windows, strict=False))
        found = [self._beside(p, window, t) for p, window in pairs[1:] or pairs]
        return [max(0.0, seconds) for seconds in found]

    def _beside(self, p: Pass, window: Interval, t: float) -> float:
        first, last = p.boundaries[0], p.boundaries[-1]
        if len(self.passes) == 1:
            return self.timeline.seconds(last.at, window.ended) - self._unfinished(p) * t
        begin = self.timeline.seconds(p.began, first.at)
        own = (first.batches - self.ahead(p)) * t
        rest = self.timeline.seconds(last.at, window.ended) - self._unfinished(p) * t
        if self.one_step_passes:
            own = begin
        return begin - own + rest + self._other_training(p, window)

    def _unfinished(self, p: Pass) -> float:
        """Batches of a pass after the last step at whose end the device was done."""
        return p.drawn[-1] - p.boundaries[-1].batches if p.drawn else 0.0

    def _other_training(self, main: Pass, window: Interval) -> float:
        """What other loaders that are trained with take beyond their miniature, in an epoch."""
        return sum(
            (self._loader_length(p) - p.batches) * p.batch_seconds
            for p in self.timeline.passes
            if p.trains
            and p.loader != main.loader
            and p.ended is not None
            and not p.exhausted
            and window.began <= p.began < window.ended
            and p.began >= main.interval.ended
        )

    def surcharge(self, t: float, fixed: Sequence[float]) -> float:
        """What the first epoch takes beyond a steady one of as many batches.

        Args:
            t: seconds of a batch.
            fixed: of steady epochs beside their steps.
        """
        p = self.passes[0]
        if len(self.passes) == 1 or not self.timeline.windows:
            first = p.boundaries[self.first_steady]
            done = first.batches - self.ahead(p)
            return max(0.0, self.timeline.seconds(p.began, first.at) - done * t)
        window = self.timeline.windows[0]
        batches = p.drawn[-1] - self.ahead(p)
        training = self.timeline.seconds(window.began, window.ended)
        usual = batches * t + (fmean(fixed) if fixed else 0.0)
        return max(0.0, training - usual + self._first_evaluations(window))

    def _first_evaluations(self, window: Interval) -> float:
        """What evaluations and saves of the first epoch take beyond those that follow."""
        extra = 0.0
        for occasions in (self.evaluations.occasions, self.timeline.saves):
            mine = [x for x in occasions if window.began <= x.began < window.ended]
            later = [x for x in occasions if x.began >= window.ended]
            if mine and later:
                usual = fmean(map(self.evaluations.whole_seconds, later))
                extra += sum(self.evaluations.whole_seconds(x) - usual for x in mine)
        return max(0.0, extra)

    # -- all of it ----------------------------------------------------------------------------

    def measurement(self) -> Measurement:
        """See ``measurement_of``."""
        samples, config = self.samples
        timed = Measurement(
            workload=self.trial.workload,
            request=self.trial.request,
            config=config,
            device=device_of(self.timeline.events, self.trial.machine),
            round=self.trial.round,
            samples=samples,
            step_seconds=tuple(seconds for seconds, _, _ in self.blocks),
            data_wait_seconds=tuple(waited for _, waited, _ in self.blocks),
            steps_per_sample=max(1, round(median(batches for _, _, batches in self.blocks))),
            save_seconds=tuple(x.seconds for x in self.timeline.saves),
            save_bytes=round(median([x.bytes for x in self.timeline.saves] or [0])),
            finish_seconds=self.finish_seconds,
            probe_seconds=self.trial.ended - self.trial.started,
            log=self.trial.log,
            created_at=self.trial.created_at,
            **self.startup,
            **self.evaluations.fields,
            **memory_peaks(self.timeline.events),  # type: ignore[arg-type]
        )
        t = step_seconds(timed)
        fixed = self.fixed_seconds(t)
        script, source = self._script()
        return replace(
            timed,
            warmup_seconds=(self.surcharge(t, fixed) + t,),
            epoch_fixed_seconds=tuple(fixed),
            script=script,
            source=source,
            warnings=tuple(self.assumptions()),
        )

    def _script(self) -> tuple[Script, str]:
        """What was started, and the fingerprint of its files."""
        every = [event for of_it in self.events.values() for event in of_it]
        imported = [file for event in of_kind(every, e.Sources) for file in event.files]
        files = own_files(self.trial.template.arguments, imported, self.trial.folder)
        script = Script(
            arguments=self.trial.template.arguments,
            environment=self.trial.template.environment,
            files=files,
            passes=len(self.passes),
            steps=round(self._batches_trained / self.accumulation),
            evaluations=self.frequency(self.evaluations.occasions),
            saves=self.frequency(self.timeline.saves),
            ended_itself=self.timeline.ended_itself,
        )
        return script, source_of_files(files, self.trial.folder)

    @property
    def _batches_trained(self) -> float:
        """In all passes, those drawn ahead of use apart."""
        return sum(p.drawn[-1] - self.ahead(p) for p in self.passes if p.drawn)

    def assumptions(self) -> list[Warning_]:
        """What was not seen, and what is therefore taken to be so."""
        found = []
        if self.batches_an_epoch is None:
            found.append(Warning_.of("no-epoch-seen"))
        elif self.loader is None:
            found.append(Warning_.of("epoch-as-said", steps=f"{self.batches_an_epoch:,}"))
        if self.timeline.by_backward:
            found.append(Warning_.of("no-optimizer-seen"))
        if self.loader is not None and len(self.passes) == 1:
            found.append(Warning_.of("one-pass-seen"))
        if not self.evaluations.occasions:
            found.append(Warning_.of("no-evaluation-seen", steps=f"{self._steps_seen:,}"))
        if not self.timeline.saves:
            found.append(Warning_.of("no-save-seen", steps=f"{self._steps_seen:,}"))
        filled = self.trial.template.filled({EPOCHS: "1", **self.trial.values})
        said = processes_said(filled.arguments)
        if said is not None and said > self.world_size:
            found.append(Warning_.of("fewer-processes", said=str(said), seen=str(self.world_size)))
        loader = self.loader
        if loader and loader.batch_size and loader.batch_size != self.batch_size:
            found.append(
                Warning_.of("other-batch", loader=str(loader.batch_size), said=str(self.batch_size))
            )
        return found

    @cached_property
    def _steps_seen(self) -> int:
        return self.passes[-1].boundaries[-1].index
