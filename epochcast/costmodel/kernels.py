"""Whether a dry run counted the kernels that the device ran.

A dry run sees the CPU's operators. Mostly a GPU runs one kernel for each of them, but attention
with dropout is one fused kernel there and many operators here: on an H200 a step of ``char-gpt``
moves 22 GB in 231 kernels, and its dry run counts 37 GB in 468. Times that were learned from the
one say nothing of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from epochcast.costmodel.features import work_classes
from epochcast.records import RunConfig

ALIKE = 1.1  # counts of one configuration differ by no more where the same kernels run
COMPARED = ("flops", "operators", "bytes_moved")

Counts = Mapping[str, float]
Check = Callable[[RunConfig, Counts], bool]


def check_against(measured: Mapping[RunConfig, Counts]) -> Check:
    """What tells whether counts of a configuration are of the kernels that ran.

    Of one that was measured all counts are compared; of others the classes of operators.
    """
    ran = {work_classes(counts) for counts in measured.values()}

    def is_of_them(config: RunConfig, counts: Counts) -> bool:
        classes, own = work_classes(counts), measured.get(config)
        if own is None:
            return not ran or classes in ran or frozenset() in ran
        known = [(own[n], counts[n]) for n in COMPARED if own.get(n) and counts.get(n)]
        alike = all(max(pair) <= ALIKE * min(pair) for pair in known)
        return alike and (classes == work_classes(own) or not work_classes(own))

    return is_of_them
