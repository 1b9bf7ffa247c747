"""One hypothesis profile: no deadlines, because no test here asserts a time.

One torch thread in all processes: several tests run at once, and threads of one wait for another.
"""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("epochcast", deadline=None, derandomize=True)
settings.load_profile("epochcast")
