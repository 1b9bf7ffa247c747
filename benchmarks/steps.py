"""Benchmarks in steps that do not depend on each other: ``python benchmarks/NAME.py [step]``."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def run(description: str, *steps: Callable[[], None]) -> None:
    """Run the step named on the command line, by its function's name; all of them without one.

    Args:
        description: its first line is shown by ``--help``.
    """
    by_name = {step.__name__: step for step in steps}
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("step", nargs="?", choices=by_name)
    chosen = parser.parse_args().step
    for step in [by_name[chosen]] if chosen else steps:
        step()
