"""The guard in real training: a plain loop, Lightning, Hugging Face's Trainer, Keras.

    plan.json ─▶ session.py ─▶ Guard (guard/guard.py) ◀─ begin_epoch, step, due, report, end_epoch
                 terminal, log, TensorBoard,                       │
                 signals, store, processes      plain.py, lightning.py, transformers.py, keras.py

Each framework is imported in its own file alone, and only when that is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

FRAMEWORKS = ("keras", "lightning", "transformers")


def __getattr__(name: str) -> Any:
    if name not in FRAMEWORKS:
        raise AttributeError(f"module 'epochcast.integrations' has no attribute {name!r}")
    return import_module(f"epochcast.integrations.{name}")
