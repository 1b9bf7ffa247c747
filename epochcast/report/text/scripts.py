"""What was seen of a script: a line for each thing that a prediction rests on, and what is assumed.

seen      3 passes of miniature over the training data, 96 steps of 313 each
          an evaluation after each epoch, 231 ms; a checkpoint after each epoch, 11.0 ms
assumed   that later epochs are like the second and third; …
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, median

from rich.console import Console
from rich.text import Text

from epochcast.costmodel.epoch import division_of
from epochcast.costmodel.summary import eval_seconds, first_steps_seconds
from epochcast.records import Frequency, Measurement
from epochcast.units import format_bytes, format_seconds


def print_seen(console: Console, measurements: Sequence[Measurement]) -> None:
    """What was seen of a script, and what is taken to be so; the last configuration tells it."""
    good = [m for m in measurements if m.status == "ok" and m.script is not None]
    if not good:
        return
    console.print()
    for heading, lines in (("seen", seen_lines(good)), ("assumed", assumed_lines(good))):
        for i, line in enumerate(lines):
            console.print(Text(f"{'' if i else heading:9} {line}"), soft_wrap=True)


def seen_lines(good: Sequence[Measurement]) -> list[str]:
    """What was seen, of the last configuration in all its trials."""
    last = good[-1]
    trials = [m for m in good if m.config == last.config]
    script, steps = last.script, division_of(last.samples, last.config).updates
    assert script is not None
    lines = [_passes(last, steps)]
    evaluation = _median(trials, eval_seconds)
    if evaluation is not None:
        often = _often(script.evaluations, steps)
        lines.append(f"an evaluation {often}, {format_seconds(evaluation)}")
    if last.save_seconds:
        size = format_bytes(last.save_bytes)
        seconds = format_seconds(median(t for m in trials for t in m.save_seconds))
        lines.append(f"a checkpoint {_often(script.saves, steps)}, {size} in {seconds}")
    fixed = [t for m in trials for t in m.epoch_fixed_seconds]
    start = fmean(m.import_seconds + m.build_seconds for m in trials)
    first = fmean(first_steps_seconds(m) for m in trials)
    end = fmean(m.finish_seconds for m in trials)
    parts = [f"{format_seconds(start)} until the first step"]
    parts += [f"{format_seconds(first)} more in the first epoch"] if first else []
    parts += [f"{format_seconds(median(fixed))} of each epoch beside its steps"] if fixed else []
    parts += [f"{format_seconds(end)} at the end"]
    return [*lines, ", ".join(parts)]


def _passes(m: Measurement, steps: int) -> str:
    script = m.script
    assert script is not None
    each = round(script.steps / max(1, script.passes))
    if any(w.code in ("no-epoch-seen", "epoch-as-said") for w in m.warnings):
        return f"{script.steps:,} steps of a loop without a data loader"
    passes = "1 pass" if script.passes == 1 else f"{script.passes} passes"
    return f"{passes} over the training data, about {each:,} steps each; a whole one has {steps:,}"


def _often(frequency: Frequency, steps: int) -> str:
    if frequency.per_step:
        return f"every {round(1 / frequency.per_step):,} steps"
    if frequency.per_epoch == 1:
        return "after each epoch"
    if 0 < frequency.per_epoch < 1:
        return f"after every {1 / frequency.per_epoch:.2g} epochs"
    return f"{frequency.per_epoch:.2g} times an epoch of {steps:,} steps"


def _median(
    trials: Sequence[Measurement], value: Callable[[Measurement], float | None]
) -> float | None:
    known = [x for m in trials if (x := value(m)) is not None]
    return median(known) if known else None


def assumed_lines(good: Sequence[Measurement]) -> list[str]:
    """What could not be seen; beside what the notes say."""
    passes = min(m.script.passes for m in good if m.script is not None)
    lines = []
    if passes > 1:
        lines.append("later epochs are like the second, and so are their evaluations and saves")
    if not all(m.script.ended_itself for m in good if m.script is not None):
        lines.append(
            "nothing is done after the last epoch that the probe did not see ({epochs} in the "
            "command shows it)"
        )
    return lines
