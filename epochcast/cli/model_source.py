"""The cost model that ``predict`` and ``plan`` ask: fitted to the probes of a store, or of a file.

WORKLOAD, --store, --device, --on ──▶ ModelSource ──▶ model, and notes on how it was chosen
--model ────────────────────────────────┘
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from epochcast.cli.options import reading
from epochcast.errors import UsageError

if TYPE_CHECKING:
    from epochcast.costmodel.model import CostModel
    from epochcast.records import Warning_


class ModelSource(NamedTuple):
    """Where the cost model comes from, as the options of a command say.

    Attributes:
        workload: a built-in name or a target; None for the one probed last.
        device: an id, a kind, or words of a name; None for that of the last probes.
        model_file: that ``fit -o`` wrote; None takes the model of the store.
        store: path or URL.
        on: a card of the catalogue, where what was measured on ``device`` is said of that one.
    """

    workload: str | None
    device: str | None
    model_file: str | None
    store: str | None
    on: str | None

    @property
    def is_probed(self) -> bool:
        """Whether the model is of a device of the store, not of a file's or of the catalogue's."""
        return not (self.model_file or self.on)

    def model(self) -> tuple[CostModel, tuple[Warning_, ...]]:
        """The model, and notes on how it was chosen.

        Raises:
            UsageError: the file's model is of another workload or device than was asked for.
        """
        if self.model_file:
            from epochcast.costmodel.model import CostModel

            model = CostModel.load(self.model_file)
            self._require_same(model, self.model_file)
            return model, ()
        from epochcast.storage.query import fitted_model

        with reading(self.store) as archive:
            return fitted_model(archive, self.workload, self.device, self.on)

    def with_names_of(self, model: CostModel) -> ModelSource:
        """The same, asking a store about the workload and the device that a file's model is of."""
        if not self.model_file:
            return self
        return self._replace(workload=model.workload, device=model.device.id)

    def _require_same(self, model: CostModel, file: str) -> None:
        from epochcast.profiler.target import meant

        workload, device = self.workload, self.device
        if workload and not meant(workload, [model.workload, model.target]):
            raise UsageError(f"{file} is a model of {model.workload}, but got {workload}")
        if device and not model.device.answers_to(device):
            raise UsageError(
                f"{file} is a model for {model.device.label}, but got --device {device}"
            )
