"""What the accuracy benchmark measures: for each workload, five batch sizes at three model sizes.

    fitted on   b₀ · b₂ · b₄     every split leaves some of it out; see splits.py
    held out    · b₁ · b₃ ·

Small enough that four rounds of everything take about a quarter of an hour on one CPU core.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from epochcast.records import SizeValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Batch sizes and model sizes of one workload; ``fixed`` knobs differ from their defaults."""

    target: str
    batch_sizes: tuple[int, ...]
    knob: str
    values: tuple[int, ...]
    fixed: dict[str, SizeValue] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For tables: the workload without its file."""
        return self.target.rpartition(":")[2]

    @property
    def sizes(self) -> dict[str, tuple[SizeValue, ...]]:
        """As ``ec.probe`` takes them."""
        return {self.knob: self.values, **{name: (v,) for name, v in self.fixed.items()}}


GRIDS = (
    Grid(
        target="digits-mlp", batch_sizes=(16, 32, 64, 128, 256), knob="width", values=(64, 128, 256)
    ),
    Grid(
        target="mnist-mlp",
        batch_sizes=(32, 64, 128, 256, 512),
        knob="width",
        values=(128, 256, 512),
    ),
    Grid(
        target="cifar10-cnn",
        batch_sizes=(8, 16, 32, 48, 64),
        knob="width",
        values=(8, 16, 32),
        fixed={"image_size": 64},
    ),
    Grid(
        target="cifar10-resnet",
        batch_sizes=(4, 8, 16, 32, 48),
        knob="width",
        values=(8, 12, 16),
        fixed={"depth": 8},
    ),
    Grid(
        target="char-gpt",
        batch_sizes=(4, 8, 16, 32, 48),
        knob="width",
        values=(32, 64, 128),
        fixed={"layers": 2, "context": 32},
    ),
    Grid(
        target="benchmarks/third_party.py:gpt2",
        batch_sizes=(2, 4, 8, 16, 32),
        knob="width",
        values=(32, 64, 128),
    ),
    Grid(
        target="benchmarks/third_party.py:bert",
        batch_sizes=(2, 4, 8, 16, 32),
        knob="layers",
        values=(1, 2, 4),
    ),
)
