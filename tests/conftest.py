"""One hypothesis profile: no deadlines, because no test here asserts a time; the same forty
examples of a law in every run, so that the suite fits into a quarter of an hour.

What a module has imported is no garbage, nor is torch's compiler, which the first optimizer of a
process imports: collections, which every trial and dry run makes, look only through what came after
it. With the compiler a whole one takes a quarter of a second.

One torch thread in all processes: several tests run at once, and threads of one wait for another.

The files that take longest come first: one that a process begins when the others have nothing left
is what everybody waits for. One process more than there are cores: a fifth of the time a test waits
for processes, servers and clocks.
"""

import gc
import os
import sys

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("epochcast", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("epochcast")

LONGEST_FIRST = (  # 15 s and more on a core, most of it in processes that import torch
    "test_gpu.py",
    "test_probe_on_ray.py",
    "test_dry_run.py",
    "test_sweep.py",
    "test_distributed.py",
    "test_examples.py",
    "test_kill.py",
    "test_fitting.py",
    "test_browser.py",
    "test_recorded.py",
    "test_sharing.py",
    "test_lightning.py",
    "test_check.py",
    "test_public_a100.py",
    "test_bootstrap_runs.py",
    "test_cli_plan.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Of ``-n auto``."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(autouse=True, scope="module")
def imports_are_no_garbage() -> None:
    if "torch" in sys.modules:
        import torch._dynamo  # noqa: F401
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ids that hold an address differ between processes, which then refuse to share the tests."""
    bad = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if bad:
        raise pytest.UsageError(f"test ids that hold an address: {bad[0]}")
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
