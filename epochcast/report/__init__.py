"""Records to people: words and tables on a terminal, pictures, a page, and what TensorBoard shows.

    text/         a sweep, measurements, dry runs, what is built in  ──▶  probing.py
                  CostModel, Estimate, earlier runs  ──▶  estimate.py      Plan ──▶ plan.py
                  a run as it is followed ──▶ following.py
                  the code of a warning   ──▶ warnings.py: its text
                  layout.py: tables and sentences that fit a terminal
                  terminal.py: what may reach one
    plots/        plan.py, following.py, comparison.py: figures; pictures.py: figures to files
    html/         a plan or a store ──▶ one page to hand on
    tensorboard/  a store or a run ──▶ event files, and a tab of our own

Text is written to a rich ``Console`` or a function that the caller passes, so that a test can
capture it. ``require_packages`` asks for the packages that only some of this needs.
"""

from __future__ import annotations

from importlib.util import find_spec

from epochcast.errors import MissingDependency


def require_packages(*packages: str) -> None:
    """Make sure that packages of the ``tensorboard`` extra are installed, without importing them.

    Raises:
        MissingDependency: one of them is not; the message says how to install it.
    """
    for package in packages:
        if find_spec(package) is None:
            raise MissingDependency(
                f"{package} is not installed; next: pip install 'epochcast[tensorboard]'"
            )
