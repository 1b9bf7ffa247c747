"""A workload out of what other frameworks hold: their loaders, optimizers, schedules and settings.

What of it decides on the cost of a step is taken over; what does and cannot be is refused by name.
"""
