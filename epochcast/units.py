"""Text to seconds, bytes, energy and money, and back.

"1h 30m"  ⇄  5400.0 seconds        "24GiB"  ⇄  25769803776 bytes        12.4  →  "$12.40"

Units are read nowhere else, and what people are shown with a unit is formatted here. A few lines
elsewhere write a unit themselves, mostly errors that quote exactly what was given; a test lists
them. Numbers without a unit, such as counts and ratios, are formatted where they are said.
"""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from unicodedata import category

from epochcast.errors import UsageError

_KWH = 3.6e6  # joules
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}
_SECONDS |= {"ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_BYTES = {unit.lower(): 1024**power for power, unit in enumerate(_BINARY)}
_BYTES |= {unit: 1000**power for power, unit in enumerate(("b", "kb", "mb", "gb", "tb", "pb"))}
_LONG = {
    "s": "sec secs second seconds",
    "ms": "msec msecs millis millisecond milliseconds",
    "us": "usec usecs micros microsecond microseconds",
    "ns": "nsec nsecs nanos nanosecond nanoseconds",
    "min": "mins minute minutes",
    "h": "hr hrs hour hours",
    "d": "day days",
    "b": "byte bytes",
}
_SHORT = {name: short for short, names in _LONG.items() for name in names.split()}
_SI = ("", "k", "M", "G", "T", "P", "E")
_SLURM = {unit: 1024**power for power, unit in enumerate("kmgtp", start=1)}  # 24G is 24GiB
_NUMBER = r"((?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?)"
_DURATION = re.compile(rf"{_NUMBER}\s*([a-zµ]+)\s*")
_QUANTITY = re.compile(rf"\s*{_NUMBER}\s*([a-zA-Z]+)?\s*")
_MONEY = re.compile(rf"\s*(?:(\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?)|{_NUMBER})\s*")
_DOT_GROUPS = re.compile(r"[1-9]\d{0,2}\.\d{3}")  # 1.200: 1,200 in half of Europe
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_CLOCK = re.compile(r"(today\s+|tomorrow\s+|)(\d{1,2}):(\d{2})")  # "08:00", "tomorrow 8:00"
_OF_SLURM = re.compile(  # sbatch --time: D-HH, D-HH:MM, D-HH:MM:SS and HH:MM:SS
    r"(?:(?P<days>\d+)-(?P<d>\d+)(?::(?P<dm>\d{2})(?::(?P<ds>\d{2}))?)?"
    r"|(?P<h>\d+):(?P<m>\d{2}):(?P<s>\d{2}))"
)
_JOULES = {"j": 1.0, "kj": 1e3, "Mj": 1e6, "mj": 1e-3}
_JOULES |= {"wh": 3600.0, "kwh": _KWH, "Mwh": 1000 * _KWH, "mwh": 3.6}
_WATTS = {"w": 1.0, "kw": 1e3, "mw": 1e-3}
LONGEST_CURRENCY = 5  # characters
_currency = "$"  # of all amounts of this process: see use_currency
MAX_MONEY, LEAST_MONEY = 1e15, 1e-6  # less is written with an exponent
MAX_WATTS = 1e15  # more is a slip of the pen, or overflows
LONGEST_SECONDS = 3000 * 365.25 * 86400  # 3,000 years: more is a slip of the pen


def parse_seconds(text: str) -> float:
    """Seconds in a duration such as ``"90"``, ``"1h 30m"``, ``"1-12:00:00"`` or ``"250ms"``.

    Raises:
        UsageError: the text is not a duration, or may be one of two: ``"08:00"``.
    """
    rest = text.strip().lower().replace("µs", "us")
    if written := _OF_SLURM.fullmatch(rest):
        parts = {name: int(part or 0) for name, part in written.groupdict().items()}
        hours, minutes = parts["d"] + parts["h"], parts["dm"] + parts["m"]
        return 86400.0 * parts["days"] + 3600 * hours + 60 * minutes + parts["ds"] + parts["s"]
    if _CLOCK.fullmatch(rest):
        raise UsageError(
            f"a duration of {text!r} may be hours or minutes; write '8h 30m', '8m 30s' or '8:30:00'"
        )
    try:
        seconds = float(rest)
    except ValueError:
        seconds = _sum_of_parts(rest, text)
    if not math.isfinite(seconds) or seconds < 0:
        raise UsageError(f"a duration is a number of seconds or like '1h 30m', but got {text!r}")
    return seconds


def _sum_of_parts(rest: str, text: str) -> float:
    seconds, position = 0.0, 0
    while position < len(rest):
        match = _DURATION.match(rest, position)
        unit = time_unit(match[2]) if match else None
        if match is None or unit is None:
            raise UsageError(
                f"a duration is a number of seconds or like '1h 30m', but got {text!r}; "
                f"units: {', '.join(_SECONDS)}"
            )
        seconds += float(match[1]) * unit
        position = match.end()
    return seconds if rest else math.nan


def parse_bytes(text: str) -> int:
    """Bytes in a size such as ``"24GiB"``, ``"24G"`` (the same), ``"800 MB"`` or ``"1024"``.

    Raises:
        UsageError: the text is not a size.
    """
    match = _QUANTITY.fullmatch(text)
    unit = (match[2] or "B").lower() if match else ""
    scale = size_unit(unit) or _SLURM.get(unit)
    size = float(match[1]) * scale if match and scale else math.inf
    if not math.isfinite(size):
        raise UsageError(
            f"a size is a number of bytes or like '24GiB' or '800MB', but got {text!r}"
        )
    return round(size)


def parse_energy(text: str) -> float:
    """Joules in an energy such as ``"0.25kWh"``, ``"900kJ"`` or ``"5e5"``; m is milli, M mega.

    Raises:
        UsageError: the text is not an energy.
    """
    match = _QUANTITY.fullmatch(text)
    name = (match[2] or "j") if match else ""
    unit = "M" + name[1:].lower() if name.startswith("M") else name.lower()
    if match is None or unit not in _JOULES:
        raise UsageError(f"an energy is like '0.25kWh' or '900kJ', but got {text!r}")
    return float(match[1]) * _JOULES[unit]


def use_currency(sign: str) -> None:
    """Write and read amounts of money with this sign in this process: ``"€"``, ``"EUR"``, ``"R$"``.

    Nothing is converted: prices and limits are numbers of one currency, whichever it is.

    Raises:
        UsageError: it is no sign of a currency.
    """
    global _currency
    known = all(c.isalpha() or category(c) == "Sc" for c in sign.removesuffix("."))
    multiplies = len(sign) == 1 and sign.isalpha()  # as k does: 18k would be 18
    if not known or multiplies or not 0 < len(sign.removesuffix(".")) <= LONGEST_CURRENCY:
        raise UsageError(f"a currency is like '$', '€', 'kr.' or 'EUR', but got {sign[:60]!r}")
    _currency = sign


def parse_money(text: str) -> float:
    """The amount in ``"$18"``, ``"18.50"`` or ``"$1,200"``.

    Raises:
        UsageError: the text is not an amount, or may be one of two: ``"18,50"``, ``"1.200"``.
    """
    match = _MONEY.fullmatch(_without_currency(text))
    like = f"an amount of money is like '{currency_sign()}18'"
    if match is None or _DOT_GROUPS.fullmatch(match[2] or ""):
        raise UsageError(
            f"{like}, '12.50' or '1,200', without other currencies' signs, as plans print "
            f"{_currency}; but got {text!r}"
        )
    amount = float((match[1] or match[2]).replace(",", ""))
    if amount > MAX_MONEY:
        raise UsageError(f"{like}, and at most 1e15, but got {text!r}")
    return amount


def parse_price(text: str) -> float:
    """The price of an hour in ``"2.5"`` or ``"$1.212"``, whose dot is always of decimals.

    Raises:
        UsageError: the text is not a number of at least 0.
    """
    try:
        price = float(_without_currency(text))
    except ValueError:
        price = math.nan
    if not 0 <= price < math.inf:
        raise UsageError(f"expected a number of at least 0, but got {text[:60]!r}")
    return price


def _without_currency(text: str) -> str:
    sign = _currency.lower()
    return text.lower().strip().removeprefix(sign).removesuffix(sign)


def parse_share(text: str) -> float:
    """The share in ``"90%"``, ``"0.9"`` or ``"90"``: a number above 1 is of percent.

    Raises:
        UsageError: the text is not a number.
    """
    number = text.strip()
    percent = number.endswith("%")
    try:
        share = float(number.removesuffix("%"))
    except ValueError:
        raise UsageError(f"a share is like '90%' or '0.9', but got {text!r}") from None
    return share / 100 if percent or share > 1 else share


def parse_power(text: str) -> float:
    """Watts in a power such as ``"300"``, ``"300W"`` or ``"0.3 kW"``.

    Raises:
        UsageError: the text is not a power.
    """
    match = _QUANTITY.fullmatch(text)
    unit = (match[2] or "w").lower() if match else ""
    if match is None or unit not in _WATTS:
        raise UsageError(f"a power is a number of watts or like '300W', but got {text!r}")
    watts = float(match[1]) * _WATTS[unit]
    if watts > MAX_WATTS:
        raise UsageError(f"a power is like '300W', and at most 1e15 watts, but got {text!r}")
    return watts


def parse_time(text: str, now: datetime) -> float:
    """Seconds from ``now`` until a local time; negative if past.

    ``"2026-12-01 08:00"``, ``"tomorrow 8:00"``, or ``"08:00"``, which is the next time it is eight.

    Raises:
        UsageError: the text is not a time.
    """
    try:
        moment = _moment(text.strip().lower(), now)
    except ValueError:
        raise UsageError(
            f"a time is like '2026-12-01 08:00', '08:00' or 'tomorrow 8:00', but got {text!r}"
        ) from None
    try:
        here = moment if moment.tzinfo else moment.astimezone()
        return (here - now.astimezone()).total_seconds()
    except (OverflowError, ValueError):  # beyond the calendar, as UTC: hours do not matter there
        return (moment.replace(tzinfo=None) - now).total_seconds()


def _moment(text: str, now: datetime) -> datetime:
    """A time of the calendar or of the clock; a ``ValueError`` if there is no such time."""
    clock = _CLOCK.fullmatch(text)
    if clock is None:
        return datetime.fromisoformat(text)
    day, hour, minute = clock[1].strip(), int(clock[2]), int(clock[3])
    moment = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    later = day == "tomorrow" or (not day and moment <= now)
    return moment + timedelta(days=1) if later else moment


def is_time(text: str) -> bool:
    """Whether a deadline is a moment, and not a duration."""
    asked = text.strip().lower()
    return _DATE.match(asked) is not None or _CLOCK.fullmatch(asked) is not None


def parse_deadline(text: str, now: datetime) -> float:
    """Seconds until a deadline: a duration such as ``"8h"``, or a local time.

    Raises:
        UsageError: the text is neither, or the time has passed, or it is beyond all reason.
    """
    seconds = parse_time(text, now) if is_time(text) else parse_seconds(text)
    if seconds > LONGEST_SECONDS:
        raise UsageError(f"a deadline is at most 3,000 years away, but got {text!r}")
    if not is_time(text):
        return seconds
    if seconds <= 0:
        raise UsageError(f"the deadline {text!r} has passed {format_seconds(-seconds)} ago")
    return seconds


def time_unit(name: str) -> float | None:
    """Seconds in a unit by its name, ``"ms"`` or ``"milliseconds"``; None if it is no such unit."""
    lowered = name.strip().lower()
    return _SECONDS.get(_SHORT.get(lowered, lowered))


def size_unit(name: str) -> int | None:
    """Bytes in a unit by its name, ``"MiB"`` or ``"bytes"``; None if it is no such unit."""
    lowered = name.strip().lower()
    return _BYTES.get(_SHORT.get(lowered, lowered))


def spelled_unit(name: str) -> str:
    """A unit of time or size as it is written: ``"seconds"`` is s, ``"mib"`` MiB."""
    lowered = name.strip().lower()
    short = _SHORT.get(lowered, lowered)
    large = {unit.lower(): unit for unit in _BINARY} | {u: u.upper() for u in _BYTES if len(u) == 2}
    return large.get(short, short if short in _SECONDS else name)


def format_seconds(seconds: float) -> str:
    """``"3h 12m"``, ``"41 s"``, ``"4.27 ms"``: two figures that matter, largest unit first."""
    if seconds < 0:
        return "-" + format_seconds(-seconds)
    if not math.isfinite(seconds):
        return "unbounded"
    if seconds > LONGEST_SECONDS:
        return "over 3,000 years"
    if seconds < 99.5:
        return _format_small_seconds(seconds)
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60}h {minutes % 60:02d}m"
    hours = round(seconds / 3600)
    return f"{hours // 24}d {hours % 24:02d}h"


def _format_small_seconds(seconds: float) -> str:
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= 0.9995 * scale:
            return f"{_three_figures(seconds / scale)} {unit}"
    return "0 s" if seconds == 0 else f"{_three_figures(seconds / 1e-6)} µs"


def format_span(low: float, high: float) -> str:
    """Two durations, a unit of both said once: ``"54.1–57.2 s"``, ``"851 ms–1.46 s"``."""
    first, second = format_seconds(low), format_seconds(high)
    number, _, unit = first.partition(" ")
    shared = unit and second.endswith(f" {unit}") and second.count(" ") == 1
    return f"{number if shared else first}–{second}"


def format_bytes(count: float) -> str:
    """``"10.6 MiB"``: binary units, three figures."""
    if count < 0:
        return "-" + format_bytes(-count)
    power = 0
    while count >= 999.5 and power < len(_BINARY) - 1:
        count, power = count / 1024, power + 1
    return f"{_three_figures(count)} {_BINARY[power]}"


def format_energy(joules: float) -> str:
    """``"250 Wh"``, ``"1.2 kWh"``; three figures."""
    return format_count(joules / 3600, "Wh") if joules >= 36 else f"{joules:.3g} J"


def format_number_of(count: int, noun: str) -> str:
    """``"1 epoch"``, ``"2,000 steps"``."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


_ONE = re.compile(
    r"(?<![\w.,×–-])1 (epoch|step|round|(?:earlier )?run|row|trial|configuration|measurement"
    r"|device|fold|sample|moment|checkpoint|process(?=es)|batch(?=es))e?s\b"
    r"( (?:are|were|have|differ)\b)?"
)
_VERBS = {" are": " is", " were": " was", " have": " has", " differ": " differs", None: ""}


def with_singulars(text: str) -> str:
    """A sentence with "1 rounds were" in it as people say it: "1 round was"."""
    return _ONE.sub(lambda found: f"1 {found[1]}{_VERBS[found[2]]}", text)


def format_count(count: float, unit: str = "") -> str:
    """``"1.2 GFLOP"``: SI prefixes, three figures."""
    power = 0
    while abs(count) >= 999.5 and power < len(_SI) - 1:
        count, power = count / 1000, power + 1
    return f"{_three_figures(count)} {_SI[power]}{unit}".strip()


def currency_sign() -> str:
    """What stands before an amount: ``"$"``, or ``"EUR "`` with the space that letters have."""
    return f"{_currency} " if _currency[-1].isalpha() or _currency[-1] == "." else _currency


def format_money(amount: float) -> str:
    """``"$12.40"``; amounts under ten cents keep two figures."""
    currency = currency_sign()
    if LEAST_MONEY <= amount < 0.0995:
        exponent = int(f"{amount:.1e}".partition("e")[2])
        return f"{currency}{amount:.{1 - exponent}f}"
    if 0 < amount < LEAST_MONEY:
        return f"{currency}{amount:.2g}"
    if amount > MAX_MONEY:
        return f"{currency}{amount:.3g}"
    return f"{currency}{amount:,.2f}"


def format_percent(share: float, decimals: int | None = None) -> str:
    """``"12 %"`` for 0.12; under ten per cent with one decimal, or always with so many."""
    if decimals is not None:
        return f"{100 * share:.{decimals}f} %"
    percent = 100 * share
    return f"{percent:.1f} %" if abs(percent) < 9.95 else f"{percent:.0f} %"


def format_change(share: float) -> str:
    """``"+12.34 %"`` for 0.1234: small changes of exact numbers, too."""
    return f"{100 * share:+.2f} %"


def format_half_width(share: float) -> str:
    """``"±12 %"`` for 0.12, a factor of 1.12; from 1 on ``"a factor of 2.50 either way"``."""
    if share < 1:
        return f"±{format_percent(share)}"
    return f"a factor of {_three_figures(1 + share)} either way"


def _three_figures(value: float) -> str:
    if not math.isfinite(value) or abs(value) >= 99.95 or value == round(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"
