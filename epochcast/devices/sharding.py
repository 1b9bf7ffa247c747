"""What each of several devices needs, by formulas: nothing of it is followed.

    need    of one device that holds everything: P parameters, G gradients, S states, in bytes
    DDP     need + G, in buckets; need, with gradient_as_bucket_view
    ZeRO-1  need + G − S·(1 − 1/N)
    ZeRO-2  need − (S + G)·(1 − 1/N)
    ZeRO-3  need − (S + G + P)·(1 − 1/N), and what is gathered at a time; FSDP fully sharded, too

ZeRO: Rajbhandari et al. 2020, arXiv:1910.02054, section 5. Buckets hold a copy of all gradients:
torch/nn/parallel/distributed.py. NCCL's buffers and what FSDP gathers come on top.
"""

from __future__ import annotations

from epochcast.errors import UsageError
from epochcast.records import DeviceNeed, Share

GATHERED = "and two units that are gathered at a time"


def by_formulas(need: DeviceNeed, devices: int) -> tuple[Share, ...]:
    """Median bytes that each device must have, by the way of sharing.

    Args:
        need: of one device; the batch is that of each device.
        devices: that share.

    Raises:
        UsageError: fewer than two devices.
    """
    if devices < 2:
        raise UsageError(f"sharing needs at least two devices, but got {devices}")
    at_peak = {share.name: share.bytes for share in need.kinds}
    gradients = _most(need, "gradients")
    gone = 1 - 1 / devices
    whole = need.device_bytes.p50
    states = at_peak.get("optimizer states", 0) * gone
    sharded = at_peak.get("gradients", 0) * gone
    weights = at_peak.get("parameters", 0) * gone
    ways = {
        "DDP": whole + gradients,
        "DDP, gradient_as_bucket_view=True": whole,
        "ZeRO-1": whole + gradients - states,
        "ZeRO-2": whole - states - sharded,
        f"ZeRO-3 or FSDP, {GATHERED}": whole - states - sharded - weights,
    }
    return tuple(Share(name=name, bytes=round(size)) for name, size in ways.items())


def _most(need: DeviceNeed, kind: str) -> int:
    """The most that a kind holds along a step."""
    curve = need.curve
    if curve is None or kind not in curve.kinds:
        return next((share.bytes for share in need.kinds if share.name == kind), 0)
    column = curve.kinds.index(kind)
    return max((row[column] for row in curve.live), default=0)
