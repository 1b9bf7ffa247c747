"""Event files in TensorBoard's own format, with its own protos, without TensorFlow or torch.

    file  = record*              record = length, CRC of length, event, CRC of event
    event = file version │ session start │ summary(step, value*)

Every file begins with a session start. When TensorBoard meets the second file of a run, that event
makes it drop what the first has from that step on (``SessionLog.START``,
tensorboard/backend/event_processing/plugin_event_accumulator.py), so nothing is drawn twice.
"""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as layout_metadata
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams import summary_v2 as hparams_summary
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from epochcast.records import SizeValue

Proto = Any  # tensorboard's generated protos carry no types


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardEntry:
    """What one run shows at one step; ``proto`` is a ``Summary`` proto."""

    step: int = 0
    proto: Proto


def scalar(tag: str, value: float, step: int, description: str) -> BoardEntry:
    """A point of a curve.

    Args:
        tag: the card's name, with the unit of the value in it; what is before a slash is its group.
        value: in that unit.
        step: where the point is along the horizontal axis.
        description: of the card, in Markdown.
    """
    return BoardEntry(step=step, proto=scalar_pb(tag, value, description))


def text(tag: str, markdown: str, step: int = 0) -> BoardEntry:
    """A text in Markdown.

    Args:
        tag: the text's name.
        markdown: what it says.
        step: TensorBoard shows the texts of one name by their steps.
    """
    return BoardEntry(step=step, proto=text_pb(tag, markdown))


def image(tag: str, png: bytes, description: str) -> BoardEntry:
    """A picture.

    Args:
        tag: the picture's name; what is before a slash is its group.
        png: its bytes, from whose header its size is read.
        description: in Markdown.
    """
    width, height = struct.unpack(">II", png[16:24])  # PNG specification 11.2.2: the IHDR chunk
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING)
    tensor.tensor_shape.dim.add(size=3)
    tensor.string_val.extend([str(width).encode(), str(height).encode(), png])
    proto = summary_pb2.Summary()
    proto.value.add(
        tag=tag,
        metadata=image_metadata.create_summary_metadata(None, description),
        tensor=tensor,
    )
    return BoardEntry(proto=proto)


def hparams_experiment(
    knobs: Mapping[str, Sequence[SizeValue]], metrics: Mapping[str, str]
) -> BoardEntry:
    """What the columns of the HParams table are.

    Args:
        knobs: the values that occur, by the name of the hyperparameter; all of one type.
        metrics: the name of the column, by the tag of the scalar.
    """
    hparams = [
        hparams_summary.HParam(name, hparams_summary.Discrete(values))
        for name, values in knobs.items()
    ]
    columns = [hparams_summary.Metric(tag, display_name=name) for tag, name in metrics.items()]
    return BoardEntry(proto=hparams_summary.hparams_config_pb(hparams, columns))


def hparams_session(
    knobs: Mapping[str, SizeValue], trial: str, succeeded: bool
) -> list[BoardEntry]:
    """One row of the HParams table; its metrics are the scalars of the same run.

    Args:
        knobs: the row's value of each hyperparameter, by name.
        trial: the row's name.
        succeeded: whether to mark it as a success or as a failure.
    """
    status = api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    proto = summary_pb2.Summary()
    proto.value.add(
        tag=hparams_metadata.SESSION_END_INFO_TAG,
        metadata=hparams_metadata.create_summary_metadata(
            plugin_data_pb2.HParamsPluginData(session_end_info=end)
        ),
        tensor=hparams_metadata.NULL_TENSOR,
    )
    return [
        BoardEntry(proto=hparams_summary.hparams_pb(dict(knobs), trial)),
        BoardEntry(proto=proto),
    ]


def margin_chart(title: str, series: Sequence[tuple[str, str, str]]) -> Proto:
    """A chart of the Custom Scalars tab: each line with its band, as tags (value, lower, upper)."""
    content = layout_pb2.MarginChartContent()
    for value, lower, upper in series:
        content.series.add(value=value, lower=lower, upper=upper)
    return layout_pb2.Chart(title=title, margin=content)


def line_chart(title: str, tag: str) -> Proto:
    """A chart of the Custom Scalars tab: a line for each tag that matches a regular expression."""
    return layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=[tag]))


def layout(title: str, charts: Sequence[Proto]) -> BoardEntry:
    """What the Custom Scalars tab shows, under one heading."""
    category = layout_pb2.Category(title=title, chart=charts)
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING)
    tensor.string_val.append(layout_pb2.Layout(category=[category]).SerializeToString())
    proto = summary_pb2.Summary()
    proto.value.add(
        tag=layout_metadata.CONFIG_SUMMARY_TAG,
        metadata=layout_metadata.create_summary_metadata(),
        tensor=tensor,
    )
    return BoardEntry(proto=proto)


def new_stamp() -> str:
    """The time in an event file's name: TensorBoard reads the files of a run in its order."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    return f"{seconds:010d}.{nanoseconds:09d}"


def opening(wall_time: float, step: int = 0) -> bytes:
    """The beginning of an event file; what earlier files of the run have from ``step`` on is void.

    Args:
        wall_time: seconds since 1970, UTC.
        step: of the session's start.
    """
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    return _records(
        event_pb2.Event(wall_time=wall_time, file_version="brain.Event:2"),
        event_pb2.Event(wall_time=wall_time, step=step, session_log=start),
    )


def records(entries: Sequence[BoardEntry], wall_time: float) -> bytes:
    """Entries as they follow one another in an event file."""
    return _records(
        *(event_pb2.Event(wall_time=wall_time, step=e.step, summary=e.proto) for e in entries)
    )


def event_file(entries: Sequence[BoardEntry]) -> bytes:
    """The content of a whole event file."""
    now = time.time()
    return opening(now) + records(entries, now)


def _records(*protos: Proto) -> bytes:
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for proto in protos:
        writer.write(proto.SerializeToString())
    return buffer.getvalue()
