"""The exceptions that epochcast raises on purpose, one small tree.

    EpochcastError
    ├── UsageError         a wrong argument: exit code 2
    ├── WorkloadError      the user's workload cannot be loaded or does not run
    ├── StoreError         the store cannot be read or written
    ├── FitError           the measurements do not determine a cost model
    ├── PredictionError    a question this cost model cannot answer: exit code 2
    └── MissingDependency  an optional package is not installed

A message is one line: what happened, what was given, what is allowed, what to do next.
"""

from __future__ import annotations


class EpochcastError(Exception):
    """Any error that a user of epochcast can cause and fix."""

    exit_code = 1


class UsageError(EpochcastError):
    """An argument is wrong."""

    exit_code = 2


class WorkloadError(EpochcastError):
    """A workload cannot be imported, built, or run for one step."""


class StoreError(EpochcastError):
    """The store of measurements cannot be opened, read or written."""


class FitError(EpochcastError):
    """The measurements given do not determine a cost model."""


class PredictionError(EpochcastError):
    """The cost model cannot answer the question asked of it."""

    exit_code = 2


class MissingDependency(EpochcastError):
    """A package that an optional feature needs is not installed."""


def named(kind: str) -> type[EpochcastError]:
    """The class of errors of that name, for an error that another process reports."""
    return next((c for c in EpochcastError.__subclasses__() if c.__name__ == kind), EpochcastError)
