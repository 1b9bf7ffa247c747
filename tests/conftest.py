"""One hypothesis profile: no deadlines, because no test here asserts a time."""

from hypothesis import settings

settings.register_profile("epochcast", deadline=None, derandomize=True)
settings.load_profile("epochcast")
