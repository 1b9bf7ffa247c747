"""The library from end to end: probe, fit, predict, plan, and a real epoch beside the prediction.

probe 3 batch sizes × 2 model sizes ──▶ fit ──▶ predict a configuration between them ──▶ plan
                                                   │ compared with
the same configuration, trained for whole epochs ──┘ in a plain loop
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import epochcast as ec
from epochcast.records import SizeValue, from_json, to_json
from gpu_parts.child import Situation
from gpu_parts.snapshots import cuda_peaks
from gpu_parts.training import Setting, Training

EPOCHS = 90  # asked for in predictions and plans
TRUE_EPOCHS = 2  # the first one has costs of its own
PROBING_SHARE = 0.75  # of a scenario's time; the rest is for what comes after


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What a scenario probes, and of which configuration it tells the truth.

    Attributes:
        sizes: values of each knob.
        truth: batch size and knobs of the epochs that are really trained; None for none.
    """

    workload: str
    batch_sizes: tuple[int, ...]
    sizes: Mapping[str, tuple[SizeValue, ...]]
    overrides: Mapping[str, SizeValue] = field(default_factory=dict)
    rounds: int = 2
    seconds: float = 0.25
    traces: bool = False
    truth: Mapping[str, Any] | None = None

    @property
    def precision(self) -> str:
        return str(self.overrides.get("precision", "fp32"))


GPT = {"layers": (6,), "heads": (6,), "context": (256,)}
MLP_PROBED = Probed(
    workload="mnist-mlp",
    batch_sizes=(128, 512, 2048),
    sizes={"width": (512, 4096)},
    traces=True,
    truth={"batch_size": 256, "width": 2048},
)
GPT_PROBED = Probed(
    workload="char-gpt",
    batch_sizes=(16, 32, 128),
    sizes={**GPT, "width": (192, 768)},
    traces=True,
    truth={"batch_size": 64, "width": 384, "layers": 6, "heads": 6, "context": 256},
)
RESNET_PROBED = Probed(
    workload="cifar10-resnet",
    batch_sizes=(128, 256, 512),
    sizes={"depth": (20,), "width": (16, 64)},
    traces=True,
)


def _variant(workload: str, sizes: Mapping[str, tuple[SizeValue, ...]], **overrides: Any) -> Probed:
    return Probed(
        workload=workload, batch_sizes=(32, 128), sizes=sizes, overrides=overrides, rounds=1
    )


SCENARIOS = {
    "mnist-mlp": MLP_PROBED,
    "char-gpt": GPT_PROBED,
    "cifar10-resnet": RESNET_PROBED,
    "char-gpt-bf16": _variant("char-gpt", {**GPT, "width": (768,)}, precision="bf16"),
    "char-gpt-fp16": _variant("char-gpt", {**GPT, "width": (768,)}, precision="fp16"),
    "char-gpt-compiled": _variant("char-gpt", {**GPT, "width": (768,)}, compile=True),
    "cifar10-resnet-bf16": _variant(
        "cifar10-resnet", {"depth": (20,), "width": (64,)}, precision="bf16"
    ),
}
DRY = Probed(
    workload="digits-mlp",
    batch_sizes=(16, 64),
    sizes={"width": (16,)},
    rounds=1,
    seconds=0.02,
    traces=True,
    truth={"batch_size": 32, "width": 16},
)


def run(here: Situation) -> None:
    """Play a scenario."""
    probed = DRY if here.dry else SCENARIOS[here.scenario]
    folder = store_folder(here.work, here.scenario)
    store = str(folder / "store.sqlite")
    try:
        measurements = ec.probe(
            probed.workload,
            batch_sizes=probed.batch_sizes,
            sizes=probed.sizes,
            overrides=probed.overrides,
            device=here.device,
            rounds=probed.rounds,
            seconds=probed.seconds,
            max_seconds=PROBING_SHARE * here.seconds_left,
            traces=probed.traces,
            store=store,
        )
    finally:  # also where it hung, or failed: each visit was stored when it ended
        here.emit("measurements", workload=probed.workload, measurements=stored(store))
    for trace in sorted(folder.rglob("trace.json.gz")):
        if is_whole(trace):
            here.emit("trace", name=str(trace.parent.relative_to(folder)), attached=trace)
    model = ec.fit(measurements)
    asked = dict(probed.truth or last_asked(measurements))
    estimate = model.predict(epochs=EPOCHS, **asked)
    here.emit("estimate", asked=asked, estimate=as_document(estimate))
    if probed.truth is not None:
        here.emit("truth", asked=asked, **truth(probed, here))
    plan = ec.plan(
        model,
        ec.Budget(deadline=2 * estimate.total_seconds.p50),
        epochs=EPOCHS,
        batch_sizes=(asked.pop("batch_size"),),
        sizes=asked,
    )
    here.emit("plan", plan=as_document(plan))


def truth(probed: Probed, here: Situation) -> dict[str, Any]:
    """Seconds of whole epochs, really trained, and the memory that they took."""
    sizes = dict(probed.truth or {})
    setting = Setting(
        workload=probed.workload,
        batch_size=sizes.pop("batch_size"),
        sizes=sizes,
        precision=probed.precision,
    )
    training = Training(setting, here.device)
    seconds = [training.epoch() for _ in range(TRUE_EPOCHS)]
    if here.on_cuda:
        return {"epoch_seconds": seconds, "peaks": cuda_peaks()}
    here.skip("memory of the real epochs", "needs CUDA")
    return {"epoch_seconds": seconds}


def last_asked(measurements: Sequence[ec.Measurement]) -> dict[str, Any]:
    """The largest configuration that was measured."""
    config = max((m.config for m in measurements if m.status == "ok"), key=_size)
    return {"batch_size": config.batch_size, **dict(config.sizes)}


def _size(config: ec.RunConfig) -> tuple[str, int]:
    return str(config.sizes), config.batch_size


def is_whole(trace: Path) -> bool:
    """Whether a file can be unpacked: a broken one would spoil the file that it goes into."""
    try:
        gzip.decompress(trace.read_bytes())
    except (OSError, EOFError):
        return False
    return True


def store_folder(work: Path, scenario: str) -> Path:
    """Where the store of a scenario is; the guard looks for its measurements there."""
    return work / f"store-{scenario}"


def as_document(record: object) -> Any:
    """A record as its own JSON, for a record of this benchmark."""
    return json.loads(to_json(record))


def stored(store: str) -> list[Any]:
    """All measurements in a store, as documents."""
    with ec.Store.open(store) as opened:
        return as_documents(opened.measurements())


def as_documents(measurements: Sequence[ec.Measurement]) -> list[Any]:
    return [as_document(m) for m in measurements]


def measurements_in(documents: Sequence[Any]) -> list[ec.Measurement]:
    """The measurements that ``as_documents`` wrote."""
    return [from_json(json.dumps(document), ec.Measurement) for document in documents]
