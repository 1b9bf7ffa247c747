"""What a layer of the memory system needs so that the live tensors fit: allocator, driver, process.

    bytes(x) = peak(x) + beyond(x)          where tensors were tracked; beyond is learned
    bytes(x)                                where they were not; all of it is learned

Beyond the tensors themselves come rounding, fragmentation, workspaces, the context and libraries:
most of it constant, some of it in proportion to the peak, never less than nothing. So a few
megabytes of noise cannot tilt a line through peaks that hardly differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log1p

import numpy as np

from epochcast.costmodel.features import Array, Table
from epochcast.costmodel.intervals import Scatter
from epochcast.costmodel.surface import Surface


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Bytes of one layer as a function of a configuration and its peak of live tensors.

    Attributes:
        surface: of what it needs beyond the peak, or of all of it.
        beyond_peak: which of the two.
        run: scatter of the surface's quantity from run to run.
    """

    surface: Surface
    beyond_peak: bool
    run: Scatter

    def values(self, table: Table, peak: Array) -> Array:
        """Bytes in n configurations; peak (n,), not negative."""
        learned = self.surface.values({**table, "peak_bytes": peak})
        return np.asarray(peak + learned if self.beyond_peak else learned)

    def value(self, variables: Mapping[str, float], peak: float) -> float:
        """Bytes in one configuration."""
        learned = self.surface.value({**variables, "peak_bytes": peak})
        return peak + learned if self.beyond_peak else learned

    def scatter(self, variables: Mapping[str, float], peak: float, of_peak: Scatter) -> Scatter:
        """Of ``value``: what is learned and the peak scatter by themselves, in proportion."""
        known = {**variables, "peak_bytes": peak}
        own = self.run + self.surface.scatter(known)
        if not self.beyond_peak:
            return own + of_peak
        share = peak / max(self.value(variables, peak), 1.0)
        return _of_part(own, 1.0 - share) + _of_part(of_peak, share)


def _of_part(scatter: Scatter, share: float) -> Scatter:
    """Scatter of a whole of which a share scatters: log(1 + s·(eˢᵈ − 1)), to first order s·sd."""
    reach = float(np.expm1(min(scatter.sd, 30.0)))
    return Scatter(sd=log1p(share * reach), dof=scatter.dof)
