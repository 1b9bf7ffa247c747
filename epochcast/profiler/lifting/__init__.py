"""A workload out of what other frameworks hold: their loaders, optimizers, schedules and settings.

What of it decides on the cost of a step is taken over; what does and cannot be is refused by name.
"""


def has_length(data: object) -> bool:
    """Whether ``len`` has an answer; that of some data sets raises."""
    try:
        len(data)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return False
    return True
