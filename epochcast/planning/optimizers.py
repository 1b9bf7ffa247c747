"""Which rule for the learning rate goes with which optimizer; nothing is imported for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

OptimizerKind = Literal["sgd", "adaptive"]

OPTIMIZERS: Mapping[str, OptimizerKind] = {
    "sgd": "sgd",
    "adam": "adaptive",
    "adamw": "adaptive",
    "adaptive": "adaptive",
    "rmsprop": "adaptive",
    "adagrad": "adaptive",
    "lamb": "adaptive",
}
