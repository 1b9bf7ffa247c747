"""The exceptions that epochcast raises on purpose, one small tree.

    EpochcastError             exit code 1
    ├── UsageError             a wrong argument                                 exit code 2
    ├── WorkloadError          the user's workload cannot be loaded or does not run
    │   └── DryRunError        it may run, but cannot be counted without running
    ├── StoreError             a store, a document or a log cannot be read or written
    ├── FitError               the measurements do not determine a cost model
    ├── PredictionError        a question that this cost model cannot answer    exit code 2
    ├── DoesNotFit             no configuration fits the budget                 exit code 3
    └── MissingDependency      an optional package is not installed

A message is one line: what happened, what was given, what is allowed, what to do next. Whatever
else is raised in the package is caught in it; a subclass that only tells two cases of one of
these apart, and that nobody outside catches, stays where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from epochcast.records import Shortfall


class EpochcastError(Exception):
    """Any error that a user of epochcast can cause and fix."""

    exit_code = 1


class UsageError(EpochcastError):
    """An argument is wrong."""

    exit_code = 2


class WorkloadError(EpochcastError):
    """A workload cannot be imported, built, or run for one step."""


class DryRunError(WorkloadError):
    """A workload cannot be traced: it needs real values, or an operator without a fake."""


class StoreError(EpochcastError):
    """A store, a document or a log cannot be opened, read or written."""


class FitError(EpochcastError):
    """The measurements given do not determine a cost model."""


class PredictionError(EpochcastError):
    """The cost model cannot answer the question asked of it."""

    exit_code = 2


class DoesNotFit(EpochcastError):
    """No configuration fits the budget; ``shortfall`` is the nearest one."""

    exit_code = 3

    def __init__(self, message: str, shortfall: Shortfall) -> None:
        super().__init__(message)
        self.shortfall = shortfall


class MissingDependency(EpochcastError):
    """A package that an optional feature needs is not installed."""


def named(kind: str) -> type[EpochcastError]:
    """The class of errors of that name, for an error that another process reports in a message.

    One that needs more than a message, and one that is not known, is an ``EpochcastError``.
    """
    found = (c for c in _tree(EpochcastError) if c.__name__ == kind and "__init__" not in vars(c))
    return next(found, EpochcastError)


def _tree(kind: type[EpochcastError]) -> Iterator[type[EpochcastError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)
