"""What dry runs say of the settings whose allocations are recorded, on the machine of the device.

A dry run needs no GPU; here it is made by a torch with CUDA, which must not mind.
"""

from __future__ import annotations

import time

import epochcast as ec
from gpu_parts.child import Situation
from gpu_parts.probes import as_document
from gpu_parts.training import Setting


def dry_run(name: str, setting: Setting, here: Situation, device: str) -> None:
    """Record the need of a setting, or why there is none.

    Args:
        name: of the scenario that records its allocations.
        setting: what is trained there.
        here: is told.
        device: a card of the catalogue, or its memory.
    """
    began = time.monotonic()
    try:
        need = ec.dry_run_on(
            setting.workload,
            device,
            setting.batch_size,
            sizes=setting.sizes,
            overrides={} if setting.precision == "fp32" else {"precision": setting.precision},
        )
    except ec.EpochcastError as error:
        here.emit("no dry run", of=name, why=f"{type(error).__name__}: {error}")
        return
    seconds = time.monotonic() - began
    here.emit("dry run", of=name, seconds=seconds, need=as_document(need))
