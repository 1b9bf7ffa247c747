"""One hypothesis profile: no deadlines, because no test here asserts a time; the same forty
examples of a law in every run, so that the suite fits into a quarter of an hour.

What a module has imported is no garbage: collections, which every trial and dry run makes, look
only through what came after it. In a process with torch's compiler a whole one takes a quarter of a
second.

One torch thread in all processes: several tests run at once, and threads of one wait for another.
"""

import gc
import os

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("epochcast", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("epochcast")


@pytest.fixture(autouse=True, scope="module")
def imports_are_no_garbage() -> None:
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ids that hold an address differ between processes, which then refuse to share the tests."""
    bad = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if bad:
        raise pytest.UsageError(f"test ids that hold an address: {bad[0]}")
