"""Every record that crosses a folder boundary: frozen, SI units in the names, raw samples kept.

    DatasetSpec ─┐
                 ├─ workload ──probe──▶ Measurement(RunConfig, Device, Footprint, MemoryPeaks)
    RunConfig  ──┘                            │ fit
                                              ▼
                      Estimate ◀──predict── CostModel (costmodel/model.py) ──plan──▶ Plan
                                              ▲                                                   │
                                              └──────── RunOutcome ◀── the real run ◀──follow──────┘

A record validates itself and derives statistics from its samples; nothing more. ``to_json`` and
``from_json`` are the only way in and out; every document carries a schema number.
"""

from __future__ import annotations

from epochcast.records.baseline import (
    AskedStep,
    Baseline,
    BaselineEntry,
    Change,
    CheckedStep,
    TimedRounds,
    Verdict,
)
from epochcast.records.configuration import (
    DatasetSpec,
    Device,
    DeviceKind,
    Precision,
    RunConfig,
    Sharding,
    Sizes,
    SizeValue,
    make_sizes,
    parse_size_value,
)
from epochcast.records.device_memory import (
    DeviceSequence,
    DeviceSpec,
    Moment,
    StepMark,
    UnknownBytes,
)
from epochcast.records.device_need import (
    Alternative,
    DeviceNeed,
    LargestValue,
    LiveTensor,
    MemoryCurve,
    Share,
    Unseen,
)
from epochcast.records.documents import (
    OLDEST_SCHEMA,
    SCHEMA,
    from_json,
    read_document,
    require_schema,
    to_builtins,
    to_json,
    write_document,
)
from epochcast.records.epoch_ranges import EpochRange
from epochcast.records.estimate import (
    Capacity,
    Estimate,
    Quantiles,
    Term,
    Warning_,
)
from epochcast.records.followed import (
    EpochDone,
    Notice,
    Position,
    RunEnded,
    RunEvent,
    RunOutcome,
    RunStarted,
)
from epochcast.records.footprint import (
    BlockKind,
    Footprint,
    Timeline,
)
from epochcast.records.measurement import (
    Communication,
    Frequency,
    GradientNoise,
    Measurement,
    MemoryPeaks,
    Script,
    Status,
    Summary,
)
from epochcast.records.plan import (
    Action,
    Budget,
    Checkpoint,
    CountUnit,
    LearningCurve,
    LimitName,
    Mode,
    Option,
    Outlook,
    Plan,
    Power,
    RateRule,
    Shortfall,
    SpotOffer,
    StopReason,
    StopRule,
    UnitPrices,
)

__all__ = [
    "OLDEST_SCHEMA",
    "SCHEMA",
    "Action",
    "Alternative",
    "AskedStep",
    "Baseline",
    "BaselineEntry",
    "BlockKind",
    "Budget",
    "Capacity",
    "Change",
    "CheckedStep",
    "Checkpoint",
    "Communication",
    "CountUnit",
    "DatasetSpec",
    "Device",
    "DeviceKind",
    "DeviceNeed",
    "DeviceSequence",
    "DeviceSpec",
    "EpochDone",
    "EpochRange",
    "Estimate",
    "Footprint",
    "Frequency",
    "GradientNoise",
    "LargestValue",
    "LearningCurve",
    "LimitName",
    "LiveTensor",
    "Measurement",
    "MemoryCurve",
    "MemoryPeaks",
    "Mode",
    "Moment",
    "Notice",
    "Option",
    "Outlook",
    "Plan",
    "Position",
    "Power",
    "Precision",
    "Quantiles",
    "RateRule",
    "RunConfig",
    "RunEnded",
    "RunEvent",
    "RunOutcome",
    "RunStarted",
    "Script",
    "Sharding",
    "Share",
    "Shortfall",
    "SizeValue",
    "Sizes",
    "SpotOffer",
    "Status",
    "StepMark",
    "StopReason",
    "StopRule",
    "Summary",
    "Term",
    "TimedRounds",
    "Timeline",
    "UnitPrices",
    "UnknownBytes",
    "Unseen",
    "Verdict",
    "Warning_",
    "from_json",
    "make_sizes",
    "parse_size_value",
    "read_document",
    "require_schema",
    "to_builtins",
    "to_json",
    "write_document",
]
