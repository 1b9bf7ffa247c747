"""A plain training loop around a built-in workload, as a user would write it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import DataLoader

from epochcast.profiler.builtin import BUILTIN

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is trained and how; ``sizes`` are the knobs of the built-in workload."""

    workload: str
    sizes: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int
    precision: str = "fp32"


class Training:
    """A workload on a device, stepped by hand.

    Args:
        setting: what is trained.
        device: of torch.
    """

    def __init__(self, setting: Setting, device: str) -> None:
        self.work = BUILTIN[setting.workload](**setting.sizes)
        self.work.model.to(device)
        self.work.model.train()
        self.setting = setting
        self.device = device
        fp16 = setting.precision == "fp16"
        self._scaler = torch.amp.GradScaler(torch.device(device).type, enabled=fp16)

    def batches(self, count: int) -> Iterator[Any]:
        """The first batches of the training data, in order, on the host."""
        loader = DataLoader(self.work.train_data, batch_size=self.setting.batch_size)
        return (batch for batch, _ in zip(loader, range(count), strict=False))

    def step(self, batch: Any) -> None:
        """Forward, backward, update; the batch is on the device afterwards, not before."""
        inputs, targets = (part.to(self.device) for part in batch)
        with self.autocast():
            loss = self.work.loss(self.work.model(inputs), targets)
        self._scaler.scale(loss).backward()
        self._scaler.step(self.work.optimizer)
        self._scaler.update()
        self.work.optimizer.zero_grad(set_to_none=True)

    def evaluate(self, batch: Any) -> None:
        """Forward alone."""
        inputs, targets = (part.to(self.device) for part in batch)
        self.work.model.eval()
        with torch.no_grad(), self.autocast():
            self.work.loss(self.work.model(inputs), targets)
        self.work.model.train()

    def epoch(self) -> float:
        """Seconds of one pass over the training data, shuffled."""
        loader = DataLoader(self.work.train_data, batch_size=self.setting.batch_size, shuffle=True)
        self.wait()
        began = time.perf_counter()
        for batch in loader:
            self.step(batch)
        self.wait()
        return time.perf_counter() - began

    def autocast(self) -> AbstractContextManager[Any]:
        """Of this setting's precision."""
        if self.setting.precision == "fp32":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, DTYPES[self.setting.precision])

    def wait(self) -> None:
        """Until the device has done all it was given."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
