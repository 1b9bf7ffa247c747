"""The tables of words by which a column's name is read: roles, results, nouns of times and sizes.

    ROLES      what a column can mean, with the phrases that say it
    WHY        a column is left out: known only afterwards, no influence on a step, of the job
    GROUPED    names below that of a group: params.batch_size, metrics.epoch_time
    …          words that say nothing, nouns, things that are counted in a rate

``roles`` takes names apart and looks them up here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from epochcast.importers.cells import SI

Kind = Literal["plain", "time", "size", "count"]


@dataclass(frozen=True, slots=True)
class Role:
    """One thing that a column can mean.

    Attributes:
        label: for people.
        names: phrases of a column's name, without its unit and its noun; divided by ``|``.
        kind: which units it has.
    """

    label: str
    names: str
    kind: Kind = "plain"


ROLES: Mapping[str, Role] = {
    "workload": Role("workload", "workload"),
    "batch_size": Role(
        "batch size of a forward pass",
        "batch size|batch|bs|batchsize|micro batch|micro batch size|mbs|train batch size"
        "|train micro batch size|per device batch size|per device train batch size"
        "|device batch size|local batch size|train bs|train batch",
    ),
    "global_batch": Role(
        "batch of all devices and accumulated steps",
        "global batch|global batch size|gbs|total batch size|total train batch size"
        "|effective batch|effective batch size|total batch|total bs|global bs|effective bs"
        "|eff batch size|eff batch|eff bs|overall batch size|macro batch size|ims batch",
    ),
    "eval_batch_size": Role(
        "batch size of an evaluation",
        "eval batch size|val batch size|validation batch size|test batch size|eval bs|val bs"
        "|per device eval batch size|device eval batch size|eval batch|val batch",
    ),
    "accumulation": Role(
        "accumulated micro-batches",
        "accumulation|grad accumulation|gradient accumulation|gradient accumulation steps"
        "|grad accumulation steps|accumulation steps|accum steps|grad accum|grad accum steps"
        "|grad acc|accum|accumulate grad batches|gas|ga|ga steps|n accum|num accum|acc steps"
        "|accumulation step|accum step|num accumulation steps|update freq",
    ),
    "world_size": Role(
        "number of devices",
        "world size|num gpus|n gpus|ngpus|ngpu|gpus|gpu count|num gpu|n gpu|num devices"
        "|n devices|ndevices|devices|device count|number of gpus|number of devices|num processes"
        "|nproc|num accelerators|num tpus|total gpus|total devices|tpus|n tpus|num chips|chips",
    ),
    "data_parallel": Role(
        "copies of the model",
        "data parallel|dp|dp size|data parallel size|data parallel degree|dp degree|dp world size"
        "|data parallel world size|ddp size|ddp world size|dp ranks|num replicas|replicas",
    ),
    "nodes": Role(
        "number of machines",
        "nodes|num nodes|n nodes|nnodes|node count|number of nodes|num machines|n machines"
        "|machines|alloc nodes|num hosts|n hosts",
    ),
    "devices_per_node": Role(
        "devices of a machine",
        "gpus node|gpu node|num gpus node|n gpus node|ngpus node|devices node|num devices node"
        "|accelerators node|chips node|nproc node|n proc node|processes node|ntasks node|tasks node"
        "|local world size|gpus machine|gpus host",
    ),
    "model_parallel": Role(
        "devices that share one copy of the model",
        "tp|tp size|tp degree|tensor parallel|tensor parallel size|tensor parallel degree"
        "|tensor parallelism|tensor model parallel size|pp|pp size|pp degree|pipeline parallel"
        "|pipeline parallel size|pipeline parallel degree|pipeline parallelism"
        "|pipeline model parallel size|pp stages|pipeline stages|cp size|context parallel"
        "|context parallel size|sp size|sequence parallel size|mp size|model parallel"
        "|model parallel size|ep size|expert parallel|expert parallel size"
        "|expert model parallel size",
    ),
    "samples": Role(
        "training samples",
        "samples|dataset size|num samples|n samples|train samples|training samples"
        "|samples epoch|num train samples|train size",
    ),
    "eval_samples": Role(
        "evaluation samples",
        "eval samples|validation samples|val samples|num eval samples|num val samples",
    ),
    "precision": Role("precision", "precision|dtype|amp dtype|mixed precision"),
    "workers": Role("loader workers", "workers|num workers|dataloader num workers"),
    "compiled": Role("compiled", "compiled|compile|torch compile"),
    "drop_last": Role("drops the last batch", "drop last"),
    "device": Role(
        "device",
        "device|device name|gpu|gpu name|gpu type|gpu model|device type|device model|accelerator"
        "|accelerator name|accelerator type|hardware",
    ),
    "run": Role("run", "run|run id|run name|trial|repeat|repetition|round"),
    "epoch": Role("epoch", "epoch|epoch number|epoch index"),
    "step": Role("step", "step|steps|global step|iteration|iterations|iter|iters"),
    "epoch_seconds": Role("epoch time", "epoch", "time"),
    "first_epoch_seconds": Role("time of the first epoch", "first epoch", "time"),
    "elapsed_seconds": Role(
        "time since the start",
        "total|cumulative|wall|wall clock|wallclock|run|since start|so far",
        "time",
    ),
    "step_seconds": Role(
        "step time",
        "step|micro step|microstep|micro batch|iteration|iter|it|batch|minibatch|micro batch step",
        "time",
    ),
    "update_seconds": Role(
        "time of an optimizer step", "update|optimizer step|optim step|global step", "time"
    ),
    "sample_seconds": Role("time of a sample", "sample|image|img|example|sequence|seq", "time"),
    "token_seconds": Role("time of a token", "token|tok", "time"),
    "eval_seconds": Role(
        "time of an evaluation", "eval|evaluation|val|valid|validation|eval epoch|val epoch", "time"
    ),
    "save_seconds": Role("time of a checkpoint", "save|checkpoint|ckpt|save checkpoint", "time"),
    "startup_seconds": Role("start-up", "startup|start up|setup", "time"),
    "peak_bytes": Role("peak memory", "|peak|max|allocated", "size"),
    "device_bytes": Role("device memory", "device|gpu|cuda|reserved", "size"),
    "flops": Role(
        "FLOPs of a micro-step", "flops|flop|model flops|flops step|flops micro step", "count"
    ),
    "bytes_moved": Role("bytes moved", "bytes moved", "count"),
    "operators": Role("operators", "operators|ops", "count"),
    "parameters": Role(
        "parameters",
        "parameters|params|num params|num parameters|n params|n parameters|param count"
        "|parameter count|model params|model parameters|total params|nparams",
        "count",
    ),
    "trainable_parameters": Role(
        "trainable parameters",
        "trainable parameters|trainable params|num trainable params",
        "count",
    ),
    "update_operators": Role("operators of an update", "update operators", "count"),
    "static_bytes": Role("bytes always there", "static bytes", "count"),
}
RESULT, OF_JOB = "a result", "of the job"  # why a column is left out
TIME = "time"  # of a column that is called just that
COUNTS = tuple(name for name, role in ROLES.items() if role.kind == "count")
SEQUENCES = (  # knobs that say how many tokens a sample has
    "sequence length|seq length|seq len|seqlen|context|context length|ctx len|n ctx|block size"
    "|max seq length|max seq len|max length|tokens sample"
)
RESULTS = (  # known only afterwards
    "final|best|throughput|speed|mfu|hfu|util|utilization|utilisation|grad norm|gradient norm"
    "|temp|temperature|watts|power|energy|kwh|joules|emissions|co 2|co2|cost|price|eta|remaining"
    "|loss scale|status|state|exit code|samples seen|converged|diverged|succeeded|ips|tps|score"
    "|scores|episode len|episode length|ep len|total tokens|tokens total|num tokens"
    "|tokens processed|total samples|samples processed|examples seen|consumed samples"
    "|consumed tokens|micro step|skipped|early stopped|stopped|nan|nans"
    "|exit|ok|retries|retry|failed|failures|oom|crashed|errors|rating|rank score|preemptions"
    "|preempted|total flos|flos|tokens seen|progress|ram|rss|max rss|maxrss"
)
WITHOUT_INFLUENCE = (  # known before, and a step takes as long whatever they are
    "lr|learning rate|weight decay|wd|momentum|seed|random seed|epochs|num epochs|max epochs"
    "|num train epochs|steps|max steps|total steps|beta 1|beta 2|beta1|beta2|betas|patience"
    "|min delta|warmup|warmup steps|warmup ratio|warmup epochs|lr scheduler|lr scheduler type"
    "|scheduler|label smoothing"
)
WRITTEN_DOWN = (  # of the job
    "date|datetime|timestamp|created|started|finished|start time|end time|wall time|host|hostname"
    "|user|url|note|notes|comment|comments|tags|ckpt path|checkpoint path|job id|jobid|job name"
    "|gpu id|gpu ids|gpu index|device id|device ids|visible devices"
)
OF_THE_JOB = (  # whole names of what was written down of a run, and is no property of it
    "commit|git commit|git sha|git hash|sha|branch|version|index|idx|unnamed 0|unnamed|row"
    "|experiment|experiment name|experiment id|exp|exp name|exp id|name|id|uuid|uid|group|project"
    "|sweep|partition|qos|account|timelimit|time limit|total cpu|cpu time|cpu time raw|submit"
    "|eligible|node list|nodelist|rank|local rank|global rank|fold|log dir|output dir|path|file"
    "|command|cmd|reason|tag|description|owner|start|end|began|ended|begin|stop|wandb|artifact uri"
    "|machine|machine name|server|cluster|node name|nodename|torch|pytorch|cuda|cudnn|python|driver"
    "|torch version|pytorch version|cuda version|cudnn version|python version|driver version"
)
PHASES = frozenset(("mode", "phase", "split", "stage", "subset"))  # of a row: train, val
ALLOCATED = frozenset(("tres", "gres"))  # what SLURM gave a job: billing=8,cpu=8,gres/gpu=4
WHY = {RESULT: RESULTS, OF_JOB: WRITTEN_DOWN, "no influence on a step": WITHOUT_INFLUENCE}
SILENCES = (
    "train training avg average mean median usage used in of perf performance timing timings"
    " profiler metrics stats system trainer"
)
SILENT = frozenset(SILENCES.split())
SINCE_START = frozenset(
    ("runtime", "elapsed", "walltime", "wallclock")
)  # alone: the time of a run so far
TIME_NOUNS = SINCE_START | {"time", "times", "duration", "dur", "latency"}
SPREAD = frozenset(  # of times, and no time
    ("std", "stddev", "sd", "var", "max", "count", "p5", "p10", "p90", "p95", "p99", "p999")
)
MIDDLES = frozenset(("mean", "avg", "average", "median", "p50"))
MICRO = re.compile("[\u00b5\u03bc]|\u039c(?=[sS])")  # the sign, and the letter it is written with
GROUPED = re.compile(  # as mlflow and Weights & Biases write them
    r"(?:(?P<before>params?|config|cfg|args|hparams|hp|hyper_?parameters)"
    r"|(?P<after>metrics?|summary)|tags?)[./](?P<rest>[^./].*)",
    re.IGNORECASE,
)
QUANTILE = re.compile(r"p\d{1,3}")
NOT_TRAINING = frozenset(("eval", "evaluation", "val", "valid", "validation", "test", "infer"))
SIZE_NOUNS = frozenset(("memory", "mem", "vram"))
MEMORY_WORDS = "peak max maximum allocated alloc reserved cached cuda torch pytorch gpu device"
SIZE_WORDS = frozenset(MEMORY_WORDS.split())  # of what a memory is said to be, in any order
OF_MEMORY = frozenset(("peak", "reserved", "allocated"))  # of nothing else
OF_DEVICE = frozenset(("reserved", "cached", "gpu", "device"))
NOT_PEAK = frozenset(("avg", "average", "mean", "median", "min", "std", "free", "available"))
BINARY = {letter: f"{letter}ib" for letter in "kmgt"}  # 24G is 24 GiB, as everywhere here
TRAINER_STEPS = ["train", "steps", "per", "second"]  # the Trainer's are optimizer steps
DEVICE_WORDS = frozenset(("gpu", "device", "chip", "rank", "accelerator"))
THINGS = {  # what is counted in a rate or timed in "s/it", and the role that its time has
    "epoch_seconds": "epoch epochs",
    "step_seconds": "step steps it its iter iters iteration iterations batch batches",
    "update_seconds": "update updates",
    "sample_seconds": "sample samples image images img imgs example examples sequence sequences "
    "seq seqs item items frame frames",
    "token_seconds": "token tokens tok toks",
}
PLURAL_WORDS = "steps samples images imgs sequences tokens iterations batches"
PLURALS = frozenset(PLURAL_WORDS.split())
ROLE_OF_THING = {word: role for role, words in THINGS.items() for word in words.split()}
DEVICE_COUNTS = (
    "gpu gpus tpu tpus device devices accelerator accelerators world cards ranks chips ddp fsdp"
    " ntasks"
)
MAY_COUNT = frozenset(DEVICE_COUNTS.split())  # devices, where nothing says what else it is
BY_PHRASE: Mapping[Kind, Mapping[str, str]] = {
    kind: {
        phrase: name
        for name, role in ROLES.items()
        if role.kind == kind
        for phrase in role.names.split("|")
    }
    for kind in get_args(Kind)
}
KNOWN_WORDS = {word for role in ROLES.values() for word in role.names.replace("|", " ").split()}
CLOCK_FORMAT = re.compile(r"(d+[- ])?h{1,2}:m{1,2}:s{1,2}(\.\w+)?|m{1,2}:s{1,2}", re.IGNORECASE)
RATE = re.compile(
    r"/\s*(s|sec|second|min|minute|h|hr|hour|day)s?\s*[)\]]?$|^(s|sec|ms|seconds)/", re.IGNORECASE
)
FUSED = re.compile(
    r"(epoch|step|batch|iter|iteration|sample|image|token|train|eval|val|wall)(times?|duration|secs?|ms)"
)
WHOLES = frozenset(("epoch", "step", "iter", "iteration", "batch", "total", "hh"))  # that take time
FLOPS = re.compile(r"([kmgtp]?)(flop|mac)s?")
SI_WORDS = {"million": "m", "millions": "m", "billion": "b", "billions": "b", **{k: k for k in SI}}
