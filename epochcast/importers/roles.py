"""What a name of a column means: its role and its unit, by the tables of ``names``.

    "Epoch time (ms)"        epoch_seconds   ms          "samples/s"           sample_seconds  1/s
    "train_step_time"        step_seconds    unsaid      "params_m"            parameters      M
    "time/step_s"            step_seconds    s           "tokens_per_sec_gpu"  token_seconds   1/s
    "peak [GiB]"             peak_bytes      GiB         "val_loss"            a result

A name is taken apart into its unit (in brackets, at its end, or beside ``per``), words that say
nothing here (``train``, ``avg``), a noun (``time``, ``memory``), and the words that are looked up.
Names are compared by their words in lower case, divided at signs, capitals and digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from epochcast.importers.cells import SI
from epochcast.importers.names import (
    ALLOCATED,
    BINARY,
    BY_PHRASE,
    CLOCK_FORMAT,
    DEVICE_WORDS,
    FLOPS,
    FUSED,
    GROUPED,
    KNOWN_WORDS,
    MICRO,
    MIDDLES,
    NOT_PEAK,
    NOT_TRAINING,
    OF_DEVICE,
    OF_JOB,
    OF_MEMORY,
    OF_THE_JOB,
    PHASES,
    PLURALS,
    QUANTILE,
    RATE,
    RESULT,
    ROLE_OF_THING,
    ROLES,
    SI_WORDS,
    SILENT,
    SINCE_START,
    SIZE_NOUNS,
    SIZE_WORDS,
    SPREAD,
    TIME,
    TIME_NOUNS,
    TRAINER_STEPS,
    WHOLES,
    WHY,
    Kind,
)
from epochcast.planning.direction import direction_of, has_phrase
from epochcast.units import size_unit, time_unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a name says.

    Attributes:
        role: a key of ``ROLES``; ``""`` if none.
        unit: as written; None if the name has none.
        inverse: whether it is a rate, things by time.
        each: ``"device"`` or ``"sample"`` where it is of one of them.
        order: of a column among several epochs of a row; 0 where there is one.
        left_out: why it is neither a role nor a knob; ``""`` if it is.
    """

    role: str = ""
    unit: str | None = None
    inverse: bool = False
    each: str = ""
    order: int = 0
    left_out: str = ""


def meaning_of(name: str) -> Meaning:
    """The role and the unit of a column, by its name."""
    if name in ROLES:
        return Meaning(role=name)
    if group := GROUPED.fullmatch(name):
        within = meaning_of(group["rest"])
        if within.role or within.left_out or group["before"]:
            return within
        return Meaning(left_out=RESULT if group["after"] else OF_JOB)
    text, bracket = _bracketed(name)
    words, each = _without_device(_words(text))
    plain = " ".join(word for word in words if word != "per")
    if each and ROLE_OF_THING.get(plain) == "sample_seconds":  # samples_per_gpu is no data set
        return Meaning(role="batch_size")
    if bracket is None and plain in BY_PHRASE["plain"]:
        return Meaning(role=BY_PHRASE["plain"][plain])
    for read in (_time_or_rate, _count, _size):
        if found := read(words, bracket):
            return replace(found, each=each or found.each)
    if RATE.search(name):
        return Meaning(left_out="a rate, but of what?")
    if plain in OF_THE_JOB.split("|") or plain in PHASES or not ALLOCATED.isdisjoint(words):
        return Meaning(left_out=OF_JOB)
    return Meaning(left_out=_why_no_knob(name, plain.split()))


def _why_no_knob(name: str, words: Sequence[str]) -> str:
    if direction_of(name) is not None:
        return RESULT
    return next((why for why, names in WHY.items() if has_phrase(words, names.split("|"))), "")


def without_group(name: str) -> str:
    """``width`` of ``params.width``: what a knob is called."""
    group = GROUPED.fullmatch(name)
    return group["rest"] if group else name


# Taking a name apart


def _bracketed(name: str) -> tuple[str, str | None]:
    """``"Epoch time (ms)"`` is ``("Epoch time", "ms")``; ``"mAP50(B)"`` has nothing in brackets."""
    found = re.fullmatch(r"(.*?)\s*[(\[{]([^()\[\]{}]*)[)\]}]\s*", name)
    if found is None or not found[1]:
        return name, None
    words = _words(found[2])
    if len(words) == 1 and (_is_unit(words[0]) or words[0] in SI_WORDS or words[0] == "%"):
        return found[1], words[0]
    if CLOCK_FORMAT.fullmatch(found[2]):  # its cells say it themselves
        return found[1], None
    if "per" in words:  # throughput (samples/s), time (s/it): what it is of is in the brackets
        return found[2], None
    return name, None


def spelled(name: str) -> list[str]:
    """The words of a name in lower case."""
    return _words(name)


def _words(text: str) -> list[str]:
    """In lower case; ``per`` between a unit and a thing, whatever the sign."""
    found: list[str] = []
    for chunk in re.findall(r"[^\W_]+|/|%", MICRO.sub("u", text)):
        whole = chunk.lower()
        if fused := FUSED.fullmatch(whole):
            found += fused.groups()
        elif (
            _is_unit(whole)
            or QUANTILE.fullmatch(whole)
            or whole in KNOWN_WORDS
            or FLOPS.fullmatch(whole)
        ):
            found.append(whole)
        else:
            found += [w.lower() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|/|%", chunk)]
    return [w for word, after in pairwise([*found, ""]) for w in _signs(word, after, found)]


def _signs(word: str, after: str, all_words: Sequence[str]) -> list[str]:
    if word == "/":
        before = all_words[all_words.index("/") - 1] if all_words[0] != "/" else ""
        countable = time_unit(before) or before in ROLE_OF_THING or before in TIME_NOUNS
        is_per = (time_unit(after) or after in ROLE_OF_THING or after in DEVICE_WORDS) and countable
        return ["per"] if is_per or after in DEVICE_WORDS else []
    return ["frames", "per", "s"] if word == "fps" else [word]


def _without_device(words: list[str]) -> tuple[list[str], str]:
    for position, (word, after) in enumerate(pairwise(words)):
        if word == "per" and after in DEVICE_WORDS:
            return words[:position] + words[position + 2 :], "device"
    return words, ""


def _is_unit(word: str) -> bool:
    return time_unit(word) is not None or size_unit(word) is not None


# Kinds


def _time_or_rate(words: Sequence[str], bracket: str | None) -> Meaning | None:
    """A time of something, or things by time."""
    if words and words[-1] in SPREAD and _time_or_rate(words[:-1], bracket):
        return Meaning(left_out="not the usual time")
    if "per" in words:
        return _per(words, bracket)
    words = _with_time(_without_middle(words))
    if len(words) == 1 and len(words[0]) > 1 and words[0] != "min" and time_unit(words[0]):
        return Meaning(role=TIME, unit=words[0])
    if len(words) == 2 and words[0] in PLURALS and time_unit(words[1]):
        return Meaning(left_out="a rate, or a time?")
    unit, rest = _unit_of(words, bracket, time_unit)
    core, order = _numbered(_core(rest, TIME_NOUNS))
    has_noun = not TIME_NOUNS.isdisjoint(rest)
    role = BY_PHRASE["time"].get(core)
    if role and (unit or has_noun or order) and (order == 0 or role == "epoch_seconds"):
        return Meaning(role=role, unit=unit, order=order)
    if not core and not order and has_noun:
        return Meaning(role=TIME if SINCE_START.isdisjoint(rest) else "elapsed_seconds", unit=unit)
    is_time = has_noun and not WHOLES.isdisjoint(rest)
    is_time = is_time or bool(rest and rest[-1] in TIME_NOUNS)
    is_time = is_time or bool(unit and len(unit) > 1 and unit != "min")
    return Meaning(unit=unit, left_out="a time, but of what?") if is_time else None


def _with_time(words: Sequence[str]) -> Sequence[str]:
    """``t_epoch`` and ``step_t`` are times of what stands beside the t."""
    unit = 1 if len(words) > 1 and time_unit(words[-1]) else 0
    rest = words[: len(words) - unit]
    others = [word for word in rest if word != "t" and word not in SILENT]
    has_one = sum(word == "t" for word in rest) == 1
    if has_one and " ".join(others) in BY_PHRASE["time"]:
        return [*others, "time", *words[len(rest) :]]
    return words


def _without_middle(words: Sequence[str]) -> Sequence[str]:
    """``step_ms_mean`` and ``step_ms_p50`` are as ``step_ms``, and so is ``ms_step``."""
    if len(words) > 1 and len(words[0]) > 1 and words[0] != "min" and time_unit(words[0]):
        rest = [word for word in words[1:] if word not in SILENT]
        if " ".join(rest) in BY_PHRASE["time"]:
            return [*rest, words[0]]
    while len(words) > 2 and words[-1] in MIDDLES:
        words = words[:-1]
    return words


def _per(words: Sequence[str], bracket: str | None) -> Meaning | None:
    """``samples per s``, ``ms per step``, ``time per epoch s``, ``time per step (ms)``."""
    at = words.index("per")
    before, after = words[at - 1] if at else "", words[at + 1] if at + 1 < len(words) else ""
    if time_unit(after) and not NOT_TRAINING.isdisjoint(words):
        return Meaning(left_out="not of the training")
    if list(words) == TRAINER_STEPS:
        return Meaning(role="update_seconds", unit=after, inverse=True)
    if time_unit(after) and before in ROLE_OF_THING:
        each = "device" if not DEVICE_WORDS.isdisjoint(words[at + 2 :]) else ""
        return Meaning(role=ROLE_OF_THING[before], unit=after, inverse=True, each=each)
    if after in ROLE_OF_THING and (time_unit(before) or before in TIME_NOUNS):
        own = before if time_unit(before) else next(filter(time_unit, words[at + 2 :]), None)
        own = bracket if bracket and time_unit(bracket) else own
        return Meaning(role=ROLE_OF_THING[after], unit=own)
    is_rate = (time_unit(after) and len(after) > 1) or after == "s"
    return Meaning(left_out="a rate, but of what?") if is_rate or time_unit(before) else None


def _size(words: Sequence[str], bracket: str | None) -> Meaning | None:
    """Memory of a device: what lived in it, or what the device gave away."""
    unit, rest = _unit_of(words, bracket, size_unit)
    if len(words) == 1 and len(words[0]) > 1 and size_unit(words[0]):
        return Meaning(unit=words[0], left_out="a size, but of what?")
    if unit is None and bracket is None and rest and len(rest[0]) > 1 and size_unit(rest[0]):
        unit, rest = rest[0], rest[1:]
    noun = not (SIZE_NOUNS | OF_MEMORY).isdisjoint(rest)
    letter = bracket or (rest[-1] if len(rest) > 1 else "")
    if unit is None and noun and letter in BINARY:
        unit, rest = BINARY[letter], rest if bracket else rest[:-1]
    if (noun or unit) and not NOT_PEAK.isdisjoint(rest):
        return Meaning(unit=unit, left_out="not the peak")
    core = _core(rest, SIZE_NOUNS).split()
    if (noun or (unit and core)) and SIZE_WORDS.issuperset(core):
        return Meaning(role=_which_memory(core), unit=unit)
    is_size = (rest and rest[-1] in SIZE_NOUNS) or (unit and len(unit) > 1)
    is_size = is_size or (noun and not SIZE_WORDS.isdisjoint(core))
    return Meaning(unit=unit, left_out="a size, but of what?") if is_size else None


def _which_memory(words: Sequence[str]) -> str:
    """What was allocated is of tensors; what is reserved, or of the device, is of the device."""
    if not {"allocated", "alloc"}.isdisjoint(words):
        return "peak_bytes"
    if OF_DEVICE.isdisjoint(words) and list(words) != ["cuda"]:
        return "peak_bytes"
    return "device_bytes"


def _count(words: Sequence[str], bracket: str | None) -> Meaning | None:
    """FLOPs and MACs with their prefix, parameters in millions, and the like."""
    each = (
        "sample"
        if words[-2:-1] == ["per"] and ROLE_OF_THING.get(words[-1]) == "sample_seconds"
        else ""
    )
    rest = list(words[:-2] if each else words)
    operations = next((word for word in rest if FLOPS.fullmatch(word)), None)
    if operations and not {"s", "per", "utilization"}.intersection(rest):
        phrase = " ".join("flops" if w == operations else w for w in rest if w not in SILENT)
        if phrase in BY_PHRASE["count"]:
            if phrase == "flops" and operations[0] in "tp":
                return Meaning(unit=operations, left_out="FLOPs of a step, or by second?")
            unit = operations if operations != "flops" else bracket
            return Meaning(role="flops", unit=unit, each=each)
        return Meaning(unit=operations, left_out="FLOPs, but of what?")
    suffix = rest[-1] if rest and rest[-1] in SI_WORDS and len(rest) > 1 else None
    phrase = " ".join(rest[:-1] if suffix else rest)
    if role := BY_PHRASE["count"].get(phrase):
        return Meaning(role=role, unit=bracket or suffix, each=each)
    return None


def _unit_of(
    words: Sequence[str], bracket: str | None, unit: Callable[[str], float | None]
) -> tuple[str | None, Sequence[str]]:
    """A unit of this kind, in brackets or as the last word, and the words without it."""
    if bracket is not None:
        return (bracket if unit(bracket) else None), words
    if len(words) > 1 and unit(words[-1]):
        return words[-1], words[:-1]
    return None, words


def _core(words: Sequence[str], nouns: Collection[str]) -> str:
    return " ".join(word for word in words if word not in SILENT and word not in nouns)


def _numbered(core: str) -> tuple[str, int]:
    """``"epoch 2"`` is ``("epoch", 3)``: columns with a number are in its order."""
    words = core.split()
    numbers = [word for word in words if word.isdigit()]
    if len(numbers) != 1:
        return core, 0
    return " ".join(word for word in words if not word.isdigit()), int(numbers[0][:9]) + 1


def unit_in(name: str, kind: Kind) -> str | None:
    """The unit of this kind that a name says, whatever the rest of it means."""
    text, bracket = _bracketed(name)
    words = _words(text)
    if kind == "count":
        return meaning_of(name).unit or bracket
    return _unit_of(words, bracket, time_unit if kind == "time" else size_unit)[0]


def count_scale(unit: str | None) -> float | None:
    """How many one of a count's unit is: 1e9 for GFLOPs, 2e9 for GMACs, 1e6 for M."""
    found = FLOPS.fullmatch(unit or "flops")
    if found:  # a multiply-add is two
        return SI[found[1]] * (2 if found[2] == "mac" else 1)
    return SI.get(SI_WORDS.get(unit or "", "?"))
