"""Cost models whose every price is a plain number, and the worked example made of one.

One sample at batch size 1 is one step, so ``samples`` steps of a second each are an epoch of that
many seconds, and every closed form can be done by hand.
"""

from __future__ import annotations

from typing import Any

from epochcast.costmodel.discrepancy import Discrepancy
from epochcast.costmodel.features import CONSTANT, Feature
from epochcast.costmodel.learned import Variant
from epochcast.costmodel.memory import Layer
from epochcast.costmodel.model import CostModel
from epochcast.costmodel.prices import Prices
from epochcast.costmodel.scatter import Amount, Scatter
from epochcast.costmodel.surface import FittedForm, Surface
from epochcast.records import Device, RunConfig

DEVICE = Device(kind="cpu", name="Known", memory_bytes=2**34, torch="2.13.0", threads=2)
MANY = 1e9  # degrees of freedom: as good as known, and JSON knows no infinity
EXACTLY = Scatter(sd=0.0, dof=MANY)
EXAMPLE = {"setup": 120.0, "first": 30.0, "epoch": 55, "evaluation": 8.0, "save": 4.0}


def _surface(
    features: tuple[Feature, ...],
    coefficients: tuple[float, ...],
    sd: float,
    axes: tuple[str, ...],
    low: tuple[float, ...],
    high: tuple[float, ...],
) -> Surface:
    missed = Discrepancy(scale=sd, dof=MANY, plain_sd=sd, left_out_rmse=sd, own=1.0)
    form = FittedForm(
        name="known",
        weight=1.0,
        features=features,
        groups=(tuple(range(len(features))),),
        coefficients=coefficients,
        exponent=1.0,
        discrepancy=missed,
    )
    return Surface(forms=(form,), axes=axes, low=low, high=high)


def constant(value: float, sd: float = 0.0) -> Surface:
    """A quantity that is the same everywhere."""
    return _surface((CONSTANT,), (value,), sd, (), (), ())


def per_sample(fixed: float, each: float) -> Surface:
    """a + c·B."""
    features = (CONSTANT, (("batch_size", 1.0),))
    return _surface(features, (fixed, each), 0.0, ("batch_size",), (1.0,), (1024.0,))


def whole(surface: Surface) -> Layer:
    """A layer of memory of which all is known."""
    return Layer(surface=surface, beyond_peak=False, run=EXACTLY)


def model(
    *,
    setup: float = 120.0,
    first: float = 30.0,
    epoch: int = 55,
    evaluation: float = 8.0,
    save: float = 4.0,
    run: Scatter | None = None,
    step_sd: float = 0.0,
    save_bytes: float = 1e6,
    device_bytes: float = 1e9,
    micro_step: Surface | None = None,
    configurations: tuple[RunConfig, ...] = (RunConfig(batch_size=1),),
    evals: int = 1,
    **changes: Any,
) -> CostModel:
    """A cost model with these prices in seconds; an epoch has ``epoch`` steps of one second."""
    variant = Variant(
        precision="fp32",
        compiled=False,
        workers=0,
        world_size=1,
        drop_last=False,
        accumulation=1,
        categories=(),
        typical=configurations[-1],
        samples=constant(float(epoch)),
        eval_samples=constant(float(evals)),
        counted=(),
        loading=None,
        build_scatter=EXACTLY,
        counts=(),
        envelopes=(),
        micro_step=micro_step or constant(1.0),
        update=None,
        evaluation=constant(evaluation),
        allocated=None,
        reserved=None,
        device_bytes=whole(constant(device_bytes)),
        save_seconds=constant(save),
        save_bytes=constant(save_bytes),
        build=None,
        loader_restart=Amount(scatter=EXACTLY),
        eval_restart=Amount(scatter=EXACTLY),
        first_steps=Amount(first, EXACTLY),
        run=run or EXACTLY,
        step_sd=step_sd,
        configurations=3 * configurations,  # fewer would be warned of
        rounds=3,
    )
    values: dict[str, Any] = {
        "workload": "known",
        "source": "",
        "device": DEVICE,
        "data": "synthetic",
        "samples": epoch,
        "eval_samples": evals,
        "imports": Amount(setup, EXACTLY),
        "variants": (variant,),
        "probing_seconds": 60.0,
    }
    return CostModel(**(values | changes))


def prices(**amounts: float | Amount) -> Prices:
    """Prices of one configuration; plain numbers are without scatter."""
    noise = amounts.pop("epoch_noise", 0.0)
    made = {k: v if isinstance(v, Amount) else Amount(float(v)) for k, v in amounts.items()}
    return Prices(**made, epoch_noise=noise)  # type: ignore[arg-type]
