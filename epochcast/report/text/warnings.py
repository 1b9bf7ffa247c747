"""The text of each warning: code and details in, one line out."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

from epochcast.records import Warning_
from epochcast.report.text.layout import say
from epochcast.units import with_singulars

WARNINGS = {
    "extrapolation": "{name} lies outside the probed range, by a factor of {factor}: "
    "the interval is wider",
    "far-extrapolation": "{name} lies far outside the probed range, by a factor of {factor}: "
    "probe closer before you rely on this",
    "extrapolation-from-zero": "{name} lies outside the probed range of {low} to {high}: the "
    "interval is wider",
    "far-extrapolation-from-zero": "{name} lies far outside the probed range of {low} to {high}: "
    "probe closer before you rely on this",
    "line-ends": "times fall in a straight line along {name}, which would leave {left} or less of "
    "what they are at the edge of the range: what stops them was not measured; probe a value there",
    "borrowed": "so far {names} was varied only where {there}: how times change with it is taken "
    "from there, at the level of {here}, and the interval allows that they differ; probe it with "
    "{here}",
    "other-kernels": "the dry run counted other kernels than the device ran, as of attention with "
    "dropout, which is one there: its counts are left out, and those that were measured are used",
    "few-levels": "{count} values of {name} were measured, and a power goes through any three: "
    "what lies beyond them is a guess at their trend; probe a value there",
    "levels-unforetold": "the measured values of {name} do not foretell each other (an error of "
    "{sd} for each doubling): what lies beyond is uncertain; probe a value there",
    "one-round": "only one round was probed: how much runs differ is assumed, not measured; "
    "probe with --rounds 3",
    "one-round-imported": "each configuration was run once: how much runs differ is assumed, not "
    "measured; import a second run of some",
    "few-configurations-imported": "only {count} configurations were imported: which form of model "
    "is right cannot be checked; import runs with more batch sizes",
    "far-extrapolation-imported": "{name} lies far outside the range of the imported runs, by a "
    "factor of {factor}: import a run closer to it before you rely on this",
    "far-extrapolation-from-zero-imported": "{name} lies far outside the range of the imported "
    "runs, {low} to {high}: import one closer before you rely on this",
    "line-ends-imported": "times fall in a straight line along {name}, which would leave {left} or "
    "less of what they are at the edge of the range: what stops them is in none of the imported "
    "runs; import one there",
    "borrowed-imported": "{names} differs so far only in runs where {there}: how times change with "
    "it is taken from those, at the level of {here}, and the interval allows that they differ; "
    "import a run with {here}",
    "few-levels-imported": "the imported runs have {count} values of {name}, and a power goes "
    "through any three: what lies beyond them is a guess at their trend; import a run there",
    "levels-unforetold-imported": "the imported values of {name} do not foretell each other (an "
    "error of {sd} for each doubling): what lies beyond is uncertain; import a run there",
    "one-round-strays": "the configurations of the one round stray so far from any smooth form "
    "that the 90 % interval of a later run is {width}; how much rounds differ is not known: probe "
    "with --rounds 3",
    "made-again": "{count} attempt(s) at a trial were lost, and it was made again on {node}; lost "
    "on {lost}",
    "nodes-silent": "left out, because they did not answer in time: {nodes}; other work may hold "
    "their devices",
    "chose-nodes": "the cluster has several kinds of device: this measures {device}; --nodes each "
    "measures {others} too",
    "more-rounds": "{rounds} rounds differ so much that the 90 % interval of a later run is "
    "{width}: more are made, {limit} at most (--rounds {rounds} makes none)",
    "rounds-differ": "{rounds} rounds differ so much that the 90 % interval of a later run is "
    "{width}; a quieter machine or more rounds narrow it",
    "rounds-differ-imported": "{rounds} runs of one configuration differ so much that the 90 % "
    "interval of a later run is {width}; runs on a quieter machine, or more of them, narrow it",
    "few-configurations": "only {count} configurations were probed: which form of model is right "
    "cannot be checked; probe more batch sizes",
    "noisy": "this machine is noisy: trials of {count} differ by more than ± {limit}, those of "
    "{config} by ± {spread}; what helps: close other programs, leave cores free (--threads), keep "
    "the clock of the CPU or GPU fixed, more --rounds",
    "chose-workload": "{workload} was probed most recently; also in the store: {others}",
    "chose-device": "using {device}; also probed: {others}; for another, --device with its id",
    "transferred": "measured on {measured}, and transferred to {device} by what a step computes "
    "and moves and both data sheets; memory and the host's part are as on {measured}; one probe on "
    "{device} corrects it",
    "of-one-device": "several devices together were measured last; this is of one {device}, as the "
    "time in which several average gradients does not follow from data sheets",
    "pooled-torch": "measured with torch {releases}, which are taken for one; probe --fresh "
    "measures again with the present one alone",
    "code-changed": "the code of {workload} has changed since it was probed: probe it again",
    "no-noise-scale": "no gradient noise scale of {config}: {why}",
    "noise-of-synthetic-data": "the gradient noise scale was measured on synthetic data, whose "
    "labels are random: give --data",
    "whole-batches": "a batch of {asked} holds {seen} rows: the data set seems to yield whole "
    "batches, and the batch size counts those, not samples; yield samples one by one, or say "
    "batch_from_data=True, with their number as batch_size=",
    "never-updated": "in {steps} steps train_step computed gradients, but no optimizer stepped: if "
    "it accumulates for longer all is well, else call optimizer.step() in it",
    "nothing-trained": "in {steps} steps train_step changed no parameter of the model and computed "
    "no gradient: what is timed may not be your training",
    "loss-not-finite": "the loss or a parameter is not a finite number {when}: check the data and "
    "the learning rate, and clip gradients as your training does; times may be wrong",
    "loss-explodes": "the loss grew from {first} to {last} while it was timed, and steps of a "
    "diverging run can take many times as long: clip gradients and set the learning rate as your "
    "training does, and probe again",
    "no-trace": "no trace of {config}: {why}",
    "no-footprints": "the workload cannot be counted without running it ({why}): sizes never "
    "probed are priced from measurements alone",
    "no-such-size": "{sizes} is left out: {why}",
    "too-large": "{count} configurations are left out: their tensors alone are more than the "
    "device's memory",
    "hopeless": "{config} is left out: by a dry run it needs at least {needed} of the device's "
    "{memory}; --try-all tries it all the same",
    "unprobed-world": "{devices} were not measured, but {probed}: a step is as the law of growth "
    "says that was fitted to these",
    "unprobed-nodes": "no devices on several nodes were measured, so averaging gradients between "
    "them is known by what is usual alone: the interval is wide; measure two nodes",
    "unprobed-node": "no devices of one node were measured together, so averaging gradients "
    "between them is known by what is usual alone: the interval is wide; measure two of them",
    "assumed-devices": "{devices} devices were not probed ({probed} was): each is taken to be as "
    "fast as the one probed, and averaging gradients to cost nothing; give --bandwidth",
    "assumed-ring": "{devices} devices were not probed ({probed} was): each is taken to be as fast "
    "as the one probed, with gradients averaged in a ring after each step",
    "folds": "each of {folds} folds trains on {samples} samples in a run of its own, and all are "
    "taken to be equally slow or fast",
    "other-samples": "{samples} samples instead of the {probed} probed: each is taken to cost the "
    "same, and evaluation data to stay as it is",
    "larger-is-better": "a larger {metric} is taken to be better, by its name; --mode min says "
    "otherwise",
    "equal-epochs": "batch sizes are compared at equal epochs, although larger ones make less "
    "progress in each: give --noise-scale",
    "no-optimizer": "the batch of {batch} is not the {reference} at which the learning rate is "
    "known, and how the rate follows depends on the optimizer: give --optimizer, e.g. sgd or adamw",
    "memory-above-device": "{limit} of memory are allowed, but the device has {all}: what fits is "
    "decided by {usable} of them, which leaves room for fragmentation",
    "futility-not-replayed": "the futility rule is left out of the stop probabilities: replaying "
    "it would fit curves for hours",
    "curve-not-finite": "{metric} was not finite from {at} until the end of a learning "
    "curve: that run failed, and only what came before is used",
    "curve-not-finite-within": "{metric} was not finite at {at} of a learning curve, "
    "where a followed run stops; the curve goes on after it, and is used as if it had not been "
    "evaluated there",
    "curves-without-training": "the stop probabilities leave out {count} of {of} learning curves: "
    "the rule pq looks at training losses, which these do not have",
    "curve-beyond-plan": "a learning curve goes on to {unit} {end}, and the plan to {unit} {last}: "
    "what comes after that is left out",
    "few-checks-in-plan": "no learning curve has {needed} checks by {unit} {last}, where the plan "
    "ends: what to expect there, and where rules stop, is not shown",
    "unknown-use": "the limit of {limit} is not kept to: what a run needs of it was not measured",
    "disk-spreads-saves": "the disk has room for {count}: saves are further apart than failures "
    "and their cost ask for; give {advice}",
    "rarely-saved": "failures come every {mtbf}, but a restart takes {restart} and the way to the "
    "next save {stretch}: after a failure about one attempt in {attempts} gets there",
    "carbon-without-watts": "carbon is unknown, because the power is: give --watts, or probe with "
    "the extra epochcast[energy] where a counter of the device may be read",
    "power-given": "{device} is taken to draw {given}, as --watts or epochcast.toml says; while "
    "it was probed it counted {counted}: --watts measured takes that",
    "power-of-others": "the power of this configuration was not counted: it is that of those which "
    "were, and the energy is less certain",
    "unused-min-delta": "--min-delta changes nothing: no rule waits for it, and no learning curve "
    "promises an improvement; add --stop patience=5",
    "never-evaluates": "the run never evaluates: the workload has no eval_data, with which an "
    "evaluation after each epoch is priced",
    "no-checks": "the stop rules never look: no evaluation is planned, or none was measured; "
    "give the workload eval_data=, or the plan an --eval-every that comes before its end",
    "short-segments": "the evaluations and saves have no larger common divisor than {steps} steps, "
    "so that what follows this plan looks at it every {seconds}: give cadences that divide each "
    "other",
    "search-cap": "no limit ends the run before {unit} {epochs}, where the search ends: for "
    "another end, give --{unit}s",
    "few-cores": "{ranks} ranks of {threads} threads share {cores} cores: steps take longer than "
    "where each has cores of its own, and what that says of more devices is too slow",
    "cores-of-ranks": "{ranks} ranks of {threads} threads are taken to have {cores} cores; where "
    "there are fewer, they share them, and steps take longer than this",
    "ranks-differ": "the ranks' weights differ after some updates, so their gradients were not "
    "averaged, and that is not in the times: call the model that is given, not its .module or a "
    "method of it",
    "no-save": "no checkpoint could be timed: {why}",
    "not-measured": "not measured, so not in the total beyond what the epochs contained: {parts}",
    "left-open": "{taken} is taken, the largest that was probed last: the question leaves it open",
    "cut-batch": "a batch of {asked} is more than a device has samples: it is one of all {made}",
    "one-time": "{count} of {runs} runs have a single time: a slow start that is in it cannot be "
    "told apart",
    "other-rows": "{count} rows are not of the training, such as {first}, and left out",
    "failed-rows": "{count} runs did not come to their end, such as {first}, so what they took is "
    "not known of all their epochs: left out",
    "since-start": "the times in {column!r} only rise, so they are taken as times since the start; "
    "the epochs took the differences: {epochs}, … seconds",
    "since-start-steps": "the times in {column!r} only rise, so they are taken as times since the "
    "start, and the column of steps as optimizer steps; a micro-batch took {epochs}, … seconds",
    "batch-of-one-device": "{column!r} is taken as the batch of one device; if it is of all of "
    "them together: {advice}",
    "step-of-micro-batch": "{column!r} is taken as the time of one micro-batch; if it is of an "
    "optimizer step, with all that is accumulated: {advice}",
    "no-counts": "the runs differ in model size ({knobs}), and no column counts what a step "
    "computes: with a column flops or params (or --footprints, where the workload can be run "
    "here), predictions of sizes that were not measured are much better",
    "fitted-one-time": "{count} of {runs} runs behind this have a single time: a slow start "
    "that is in it is priced as part of every epoch",
    "left-behind": "what the script wrote was put back, as far as is known; not known ({count}): "
    "{places}",
    "quiet": "nothing that the command has started has done anything for {seconds}; its last line: "
    "{said} (log: {log})",
    "machine-busy": "while this was measured other programs used {others} of {processors} "
    "processors, and hardly one was free: alone a run takes less; probe again when the machine is "
    "quiet (--fresh)",
    "ended-hard": "the script did not end by itself when its epochs were over: after {seconds} in "
    "which nothing went on it was ended from outside, and what it does at its end is not known",
    "put-back-later": "a probe that was killed had left files: {places} of them were put back, "
    "left: {left}",
    "no-epoch-seen": "no epoch was seen: the script steps without a loader that has a length. "
    "Steps are priced one by one: predict --steps 10000; or probe again with --steps-per-epoch or "
    "--samples, which say what an epoch is",
    "epoch-as-said": "an epoch is {steps} steps, as was said: the script has no loader that tells",
    "no-optimizer-seen": "no optimizer of torch was seen to step: a step is a backward call",
    "one-pass-seen": "a single pass over the training data was seen: what an epoch takes beside "
    "its steps cannot be told apart from the first steps",
    "no-evaluation-seen": "no evaluation was seen in {steps} steps, and none is priced",
    "no-save-seen": "no checkpoint was seen in {steps} steps, and none is priced",
    "fewer-processes": "the command asks for {said} processes, but {seen} trained together: what "
    "was measured is the work of {seen} (accelerate launch --cpu starts one, whatever it is told)",
    "other-batch": "the command says a batch size of {said}, but its loader has {loader}: "
    "predictions are by the former",
    "calibrated": "corrected by {runs} earlier runs (epochcast calibration): {parts}",
    "memory-tight": "at P90 the run needs {share} of the device's memory: it may run out",
    "other-device": "this run was on {ran}, and its plan is for {planned}: it corrects no "
    "prediction for the latter",
    "drift": "epochs now take {ratio_after} times the planned time; before it was {ratio_before}",
    "replanned": "the run is now to end after epoch {new}, not {old}: {why}",
    "cut": "a whole epoch would not fit any more; about {steps} of its {of} steps do",
    "resumed": "goes on from epoch {epoch}, step {step}; {spent} were spent before",
    "signal": "received {name}: saves after the step that is running, then stops",
    "save-failed": "a checkpoint could not be saved ({error}): the one before it is kept",
    "disk-limits-checkpoints": "the plan's disk limit has room for {count} checkpoints of {size} "
    "at once: before another is written older ones go, the best one too, and only the newest stays "
    "for certain",
    "endless-epoch": "an epoch is taken to have {samples} samples, the length of the data set or "
    "sampler that was probed: if that only means without end, there are no epochs; count "
    "optimizer steps, predict --steps or plan --steps, or say with --samples what an epoch is",
    "disk-one-checkpoint": "the plan's disk limit has room for one checkpoint: it is written when "
    "the run ends, nothing is saved before, and the best value's weights are not kept; for that, "
    "plan with --disk {need}",
    "disk-no-checkpoint": "a checkpoint takes {size}, more than the plan's disk limit: it is "
    "written when the run ends, beyond the limit; plan with --disk {need}",
    "disk-overfilled": "a checkpoint was larger than those before it, or than planned, and filled "
    "{over} more than the plan's disk limit until an older one went; plan with --disk {need}",
    "damaged-checkpoint": "checkpoint {name} is damaged ({error}): the run goes on from the one "
    "before it",
    "vanished-checkpoint": "checkpoint {number}, the newest of this run, is no longer there: what "
    "was trained since the one before it is lost",
    "damaged-ledger": "how much was used is taken from the newest checkpoint, and what came after "
    "it is not counted: {error}",
    "steps-differ": "an epoch has {seen} steps, not the {planned} of the plan: from here on its "
    "time is judged by those",
    "schedule-shortened": "the run will end after {steps} steps, but the learning-rate schedule "
    "was planned for {horizon}: it will not reach its end, and was left as it is",
    "could-continue": "{epochs} more epochs would fit the limits; the plan ends here",
    "no-report": "{metric} was not among the values reported after epoch {epoch}: the rules that "
    "watch it saw nothing",
    "not-evaluated": "epoch {epoch} was to be evaluated, but nothing was reported",
    "other-plan": "the checkpoint is from a run under another plan: what was spent counts on, and "
    "the limits are those of the plan given now",
    "store-failed": "what this run took could not be stored, so later predictions will not learn "
    "from it: {error}",
    "evaluation-skipped": "no evaluation after epoch {epoch}: it would not have fitted",
    "ledger-failed": "what this run uses could not be written down ({error}); it goes on, and a "
    "kill would forget what was used since the last checkpoint",
    "watcher-failed": "something that shows this run stopped working ({error}); the run goes on",
    "save-time-unknown": "how long a checkpoint takes to save was never measured: the first one "
    "of this run will show",
    "epochs-by-options": "{epochs} epochs, as an option of the command says; where that is "
    "something else, give --epochs",
    "batch-differs": "the plan is for a batch size of {planned}, but the script's loader has "
    "{seen}",
    "script-differs": "the plan is for {planned}, but what runs is called {seen}: outcomes of one "
    "are no outcomes of the other; run what was planned, or plan what runs: epochcast plan {seen}",
    "time-left": "after {steps} steps: {span} to go to the end of epoch {epochs}, in eight cases "
    "of ten{beside}",
    "time-left-unknown": "after {steps} steps, {seconds} each batch; to say when it ends, its "
    "number of epochs must be known: --epochs{steps_per_epoch}",
    "asked-to-leave": "asked to save and leave, by {way}, {left} before {limit} is used up",
    "cannot-be-asked": "{limit} is used up in {left}, and the script knows no way to be asked to "
    "save and leave: it handles neither SIGTERM nor SIGUSR1, and is not in Lightning or Trainer "
    "(yet: it is tried again)",
    "limit-passed": "{limit} is used up, and the command still runs: it is left to itself",
    "limit-ends": "{limit} is used up, and the command still runs: it is ended now, as was asked",
    "signal-passed-on": "{name} was passed on to the command",
    "unknown-event": "line {line} of the log has an event {kind!r}, which this epochcast does not "
    "know; for more, run: pip install --upgrade epochcast",
}


def warning_text(warning: Warning_) -> str:
    """A warning in words."""
    return with_singulars(WARNINGS[warning.code].format(**dict(warning.details)))


def print_warnings(console: Console, warnings: Iterable[Warning_], heading: str = "note") -> None:
    """Each warning once, one line each.

    Args:
        console: where to print.
        warnings: in this order.
        heading: of each line.
    """
    for text in dict.fromkeys(warning_text(w) for w in warnings):
        say(console, f"{heading}: {text}", "yellow")
