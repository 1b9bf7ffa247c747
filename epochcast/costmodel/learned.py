"""What a cost model has learned, as plain numbers: of each way of running, and of all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from epochcast.costmodel.loading import Loading
from epochcast.costmodel.memory import Envelope, Layer, Layers
from epochcast.costmodel.scaling import Scaling, World
from epochcast.costmodel.scatter import KNOWN_DOF, NO_COST, Amount, Calibrations, Scatter
from epochcast.costmodel.surface import Surface
from epochcast.records import SCHEMA, Device, Frequency, Precision, RunConfig, Sizes, Warning_


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way of running that is not a matter of more or less; has surfaces of its own.

    Attributes:
        categories: knobs that are not numbers, with their values.
        typical: the most recently probed configuration: what a question leaves open.
        samples, eval_samples: of an epoch and of an evaluation; knobs may change them.
        counted: what was counted in single configurations, by measuring or in a dry run.
        counts: the same as functions of batch size and numeric knobs, for all others.
        envelopes: peaks of live tensors at every batch size, of model sizes with timelines.
        micro_step: seconds of a micro-step without the optimizer's update.
        loading: the same from computing and loading apart; None where they were not measured.
        update: seconds of one optimizer update; None where it cannot be told apart.
        evaluation: seconds of one evaluation batch, by its own batch size; None without data.
        allocated: the allocator's peak; all that is known where no tensors were tracked.
        reserved: what the allocator took from the device.
        device_bytes: what the device gave away for a peak of so many live bytes, context included.
        evaluating, saving: the same three of evaluation and of saving a checkpoint.
        evaluation_peak: live bytes of evaluation, by its own batch size and knobs.
        save_seconds, save_bytes: of one checkpoint.
        build: seconds to build model, data and optimizer; ``build_scatter`` from process to
            process.
        loader_restart: seconds between two passes over the loader beyond an ordinary wait for
            data.
        eval_restart: seconds until the first evaluation batch.
        first_steps: what the first steps take beyond steady ones.
        run: run-level scatter of step times; shared by all epochs of a run.
        step_sd: noise of one micro-step as a long series of them feels it, relative.
        step_dof: degrees of freedom with which that is known.
        steps: micro-steps that were timed of a configuration, in the mean.
        trials: successful ones.
        doubts: why what they took may not be what a run takes.
        fixed: what an epoch of a script has beside steps, evaluations and saves.
        finish: from the last epoch's end to that of the process.
        evaluations, saves: how often the script does either; None for a workload, of which the
            question decides.
        single_times: those of them that are known by one time, a slow start perhaps included.
        lent: configurations of variants that differ in words alone, whose shapes are borrowed.
        lenders: the words of these.
        nodes: machines that the devices are spread over.
        scaling: how steps grow with the devices, where variants differ in nothing else.
    """

    precision: Precision
    compiled: bool
    workers: int
    world_size: int
    drop_last: bool
    accumulation: int
    categories: Sizes
    typical: RunConfig
    samples: Surface
    eval_samples: Surface | None
    counted: tuple[tuple[RunConfig, tuple[tuple[str, float], ...]], ...]
    counts: tuple[tuple[str, Surface], ...]
    envelopes: tuple[Envelope, ...]
    micro_step: Surface
    loading: Loading | None
    update: Surface | None
    evaluation: Surface | None
    allocated: Layer | None
    reserved: Layer | None
    device_bytes: Layer | None
    evaluating: Layers = field(default_factory=Layers)
    saving: Layers = field(default_factory=Layers)
    evaluation_peak: Surface | None = None
    save_seconds: Surface | None
    save_bytes: Surface | None
    build: Surface | None
    build_scatter: Scatter
    loader_restart: Amount
    eval_restart: Amount
    first_steps: Amount
    run: Scatter
    step_sd: float
    configurations: tuple[RunConfig, ...]
    rounds: int
    step_dof: float = KNOWN_DOF
    steps: float = KNOWN_DOF
    trials: int = 0
    single_times: int = 0
    doubts: tuple[Warning_, ...] = ()
    fixed: Amount = NO_COST
    finish: Amount = NO_COST
    evaluations: Frequency | None = None
    saves: Frequency | None = None
    lent: tuple[RunConfig, ...] = ()
    lenders: tuple[Sizes, ...] = ()
    nodes: int = 1
    scaling: Scaling | None = None

    @property
    def known(self) -> list[RunConfig]:
        """What was measured, counted or borrowed."""
        return [*self.configurations, *(config for config, _ in self.counted), *self.lent]

    def values_of(self, knob: str) -> set[float]:
        """The values of a numeric knob that were measured, counted or borrowed."""
        return {float(dict(config.sizes)[knob]) for config in self.known}

    @property
    def world(self) -> World:
        """The devices it was measured on."""
        return World(self.world_size, self.nodes)

    @property
    def is_of_script(self) -> bool:
        """Whether it was learned from a training script as it is."""
        return self.evaluations is not None

    @property
    def way(self) -> tuple[object, ...]:
        """What variants have in common that differ in nothing but their workers."""
        return self.precision, self.compiled, self.categories

    @property
    def work(self) -> str:
        """Which count of FLOPs times were learned from: imported ones may know only one."""
        return "aligned_flops" if "aligned_flops" in dict(self.counts) else "flops"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Seconds and bytes of one workload on one device, as learned: all that prediction needs.

    Attributes:
        samples: training samples per epoch, as probed last.
        eval_samples: evaluation samples, likewise.
        imports: process start until the user's code is loaded.
        target: what was measured, which may have got the name of ``workload``; as of a measurement.
        variants: most recently probed first.
        probing_seconds: wall-clock time of all the measurements behind the model.
        calibration: what outcomes of followed runs say; all else is of probes alone.
        measured_on: the device that was measured, where the model is of another.
    """

    schema: int = SCHEMA
    workload: str
    source: str
    device: Device
    data: str
    samples: int
    eval_samples: int
    imports: Amount
    variants: tuple[Variant, ...]
    probing_seconds: float
    calibration: Calibrations = field(default_factory=Calibrations)
    measured_on: Device | None = None
    target: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", self.target or self.workload)
