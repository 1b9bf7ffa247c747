"""Real cards: memory as CUDA reports it, the shape of the chip, and peak rates of the data sheet.

    find_device("a100-40gb")   ──▶ a card of the catalogue
    find_device("24GiB")       ──▶ a device of that much memory, otherwise taken to be ``UNKNOWN``

What is written on a card is not what CUDA gives: an "80 GB" H100 has 79.1 GiB. ``memory_bytes`` is
the least that was seen of each, and ``memory_source`` says where: kineto traces name it to the byte
(``totalGlobalMem``), torch's messages of exhausted memory to 0.01 GiB. Rates are of dense matrices,
accumulated in float32, at the boost clock.

Compared in November 2026 with public tables beside the data sheets named: multiprocessors and
bandwidth of the T4, A100, A10, RTX 2080 Ti, 3060, 3080, 3090, 4060, 4090, 5090, PRO 6000, A4000,
L40, L40S and B200, bandwidth of V100, L4, H100 and H200, and rates of V100, A100, H100, H200, B200,
L40, L40S, RTX 4090 and PRO 6000, in float32 also of RTX 2080 Ti (13.45), 3080 and 3090. Tables
differ from the data sheet in the L4's multiprocessors (60) and the RTX 6000 Ada's bandwidth (768).
The A30's row was compared with nothing. An H200 reached 76 % of its rate in float32, 82 % in TF32
and 80 % in bfloat16 on matrices of 8,192, and 89 % of its bandwidth (benchmarks/results/h200).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from epochcast.errors import UsageError
from epochcast.records import DeviceSpec
from epochcast.units import format_bytes, parse_bytes

GIB = 2**30
_NOISE = re.compile(r"nvidia|geforce|tesla|[^a-z0-9]")
_MEMORY_SUFFIX = re.compile(r"-\d+gb$")
SAME_CARD = 0.05  # of its memory: drivers report that much more or less of one card
_WORDS = re.compile(r"[a-z0-9]+")
_A_SIZE = re.compile(r"\s*[\d.]+\s*[kmgt]i?b?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One kind of card.

    Attributes:
        device: what the memory of a training depends on.
        bandwidth: of its memory, bytes a second.
        rates: precision → FLOPs a second, at most.
        memory_source: where CUDA was seen to report so much.
        data_sheet: of the rates.
        contexts: bytes taken outside torch's allocator, as seen on this chip; equally likely.
    """

    device: DeviceSpec
    bandwidth: float
    rates: Mapping[str, float] = field(default_factory=dict)
    memory_source: str
    data_sheet: str
    contexts: tuple[int, ...] = ()


UNKNOWN = DeviceSpec(  # the chip of a device of which only the memory is named: A100's
    name="unknown",
    memory_bytes=40 * GIB,
    capability=(8, 0),
    multiprocessors=108,
    threads_per_multiprocessor=2048,
)


def _card(
    name: str,
    memory: float,
    memory_source: str,
    chip: tuple[tuple[int, int], int, int],
    bandwidth: float,
    rates: Mapping[str, float],
    data_sheet: str,
    contexts: tuple[int, ...] = (),
) -> Card:
    """A row of the catalogue.

    Args:
        name: of the card.
        memory: bytes where it is a whole number, else GiB.
        memory_source: where CUDA reports it.
        chip: compute capability, multiprocessors, threads of each.
        bandwidth: GB a second.
        rates: precision → 10¹² FLOPs a second.
        data_sheet: where both are from.
        contexts: measured outside the allocator.
    """
    capability, multiprocessors, threads = chip
    device = DeviceSpec(
        name=name,
        memory_bytes=memory if isinstance(memory, int) else round(memory * GIB),
        capability=capability,
        multiprocessors=multiprocessors,
        threads_per_multiprocessor=threads,
    )
    return Card(
        device=device,
        bandwidth=bandwidth * 1e9,
        rates={precision: rate * 1e12 for precision, rate in rates.items()},
        memory_source=memory_source,
        data_sheet=data_sheet,
        contexts=contexts,
    )


# messages of exhausted memory of HiDream-ai/VAREdit#6, TianheWu/CoSeR#10 and lianqi1008/
# Control-GIC#6; and 39 of the 69 networks of benchmarks/public_memory.py, which had 1,428 to 1,432
# MiB beyond their replayed reserve (GPUMemNet, arXiv:2602.17817, by nvidia-smi)
A100_CONTEXTS = tuple(mib * 2**20 for mib in (409, 501, 503, 1429))
# benchmarks/results/h200: perceptrons and float32, cuDNN, cudnn.benchmark, a stream for copies; an
# H100 with cuDNN had 767 to 769 (benchmarks/results/h100)
HOPPER_CONTEXTS = tuple(mib * 2**20 for mib in (751, 767, 771, 821))
_HTA = "kineto trace, facebookresearch/HolisticTraceAnalysis f4d0062, tests/data/"
_OOM = "torch's message of exhausted memory, "

CATALOGUE = {
    card.device.name: card
    for card in (
        _card(
            "t4",
            15_634_661_376,
            "14.56 GiB in highwaterlabs/torch-preflight 774b839, measured_cuda.json",
            ((7, 5), 40, 1024),
            320,
            {"fp32": 8.1, "fp16": 65},
            "NVIDIA T4 Tensor Core GPU datasheet (2019)",
            (141_426_688,),
        ),
        _card(
            "v100-16gb",
            16_945_512_448,
            _HTA + "trace_diff/test",
            ((7, 0), 80, 2048),
            900,
            {"fp32": 15.7, "fp16": 125},
            "NVIDIA V100 Tensor Core GPU datasheet (2020), SXM2",
        ),
        _card(
            "v100-32gb",
            34_079_637_504,
            _HTA + "ns_resolution_trace",
            ((7, 0), 80, 2048),
            900,
            {"fp32": 15.7, "fp16": 125},
            "NVIDIA V100 Tensor Core GPU datasheet (2020), SXM2",
        ),
        _card(
            "rtx-2080-ti",
            11_554_586_624,
            "kineto trace, facebookresearch/param 1e115ff",
            ((7, 5), 68, 1024),
            616,
            {"fp32": 13.4, "fp16": 53.8},
            "NVIDIA Turing GPU architecture whitepaper (2018), reference clock",
        ),
        _card(
            "a100-40gb",
            42_297_524_224,
            _HTA + "nccl_parser_config",
            ((8, 0), 108, 2048),
            1555,
            {"fp32": 19.5, "tf32": 156, "bf16": 312, "fp16": 312},
            "NVIDIA A100 Tensor Core GPU datasheet (2021)",
            A100_CONTEXTS,
        ),
        _card(
            "a100-80gb",
            84_990_623_744,
            _HTA + "negative_queue_length_values_check",
            ((8, 0), 108, 2048),
            2039,
            {"fp32": 19.5, "tf32": 156, "bf16": 312, "fp16": 312},
            "NVIDIA A100 Tensor Core GPU datasheet (2021), SXM",
        ),
        _card(
            "a30",
            23.53,
            _OOM + "github.com/google/RB-Modulation/issues/5",
            ((8, 0), 56, 2048),
            933,
            {"fp32": 10.3, "tf32": 82, "bf16": 165, "fp16": 165},
            "NVIDIA A30 Tensor Core GPU datasheet (2022)",
        ),
        _card(
            "a10",
            21.99,
            _OOM + "github.com/zai-org/CogVLM/issues/236",
            ((8, 6), 72, 1536),
            600,
            {"fp32": 31.2, "tf32": 62.5, "bf16": 125, "fp16": 125},
            "NVIDIA A10 Tensor Core GPU datasheet (2021)",
        ),
        _card(
            "rtx-a4000",
            15.61,
            _OOM + "github.com/DengKaiCQ/VGGT-Long/issues/6",
            ((8, 6), 48, 1536),
            448,
            {"fp32": 19.2, "tf32": 38.3, "bf16": 76.7, "fp16": 76.7},
            "NVIDIA RTX A4000 datasheet (2021)",
        ),
        _card(
            "rtx-3060",
            11.75,
            _OOM + "github.com/smy20011/dreambooth-gui/issues/78",
            ((8, 6), 28, 1536),
            360,
            {"fp32": 12.7, "tf32": 12.7, "bf16": 25.5, "fp16": 25.5},
            "NVIDIA Ampere GA102 whitepaper (2021), scaled to its multiprocessors",
        ),
        _card(
            "rtx-3080",
            9.78,
            _OOM + "github.com/zai-org/CogVideo/issues/34",
            ((8, 6), 68, 1536),
            760,
            {"fp32": 29.8, "tf32": 29.8, "bf16": 59.5, "fp16": 59.5},
            "NVIDIA Ampere GA102 whitepaper (2021)",
        ),
        _card(
            "rtx-3090",
            23.50,
            _OOM + "github.com/XChenZ/havatar/issues/6",
            ((8, 6), 82, 1536),
            936,
            {"fp32": 35.6, "tf32": 35.6, "bf16": 71, "fp16": 71},
            "NVIDIA Ampere GA102 whitepaper (2021)",
        ),
        _card(
            "rtx-4060",
            7.72,
            _OOM + "github.com/longxiang-ai/TSGS/issues/6",
            ((8, 9), 24, 1536),
            272,
            {"fp32": 15.1, "tf32": 15.1, "bf16": 30.2, "fp16": 30.2},
            "NVIDIA Ada whitepaper (2023), scaled to its multiprocessors",
        ),
        _card(
            "rtx-4090",
            23.52,
            _OOM + "github.com/Soul-AILab/SoulX-FlashTalk/issues/5",
            ((8, 9), 128, 1536),
            1008,
            {"fp32": 82.6, "tf32": 82.6, "bf16": 165.2, "fp16": 165.2},
            "NVIDIA Ada whitepaper (2023)",
        ),
        _card(
            "rtx-6000-ada",
            44.43,
            _OOM + "github.com/DINGYANB/MTVCrafter/issues/21 (with ECC)",
            ((8, 9), 142, 1536),
            960,
            {"fp32": 91.1, "tf32": 182.1, "bf16": 364.2, "fp16": 364.2},
            "NVIDIA RTX 6000 Ada Generation datasheet (2023)",
        ),
        _card(
            "l4",
            21.99,
            "taken to be an A10's, whose nvidia-smi shows the same: modal-labs/modal-client#2797",
            ((8, 9), 58, 1536),
            300,
            {"fp32": 30.3, "tf32": 60, "bf16": 121, "fp16": 121},
            "NVIDIA L4 Tensor Core GPU datasheet (2023)",
        ),
        _card(
            "l40",
            44.40,
            _OOM + "github.com/NVlabs/Eagle/issues/68",
            ((8, 9), 142, 1536),
            864,
            {"fp32": 90.5, "tf32": 90.5, "bf16": 181, "fp16": 181},
            "NVIDIA L40 GPU datasheet (2023)",
        ),
        _card(
            "l40s",
            44.40,
            "taken to be an L40's, whose nvidia-smi shows the same: modal-labs/modal-client#2797",
            ((8, 9), 142, 1536),
            864,
            {"fp32": 91.6, "tf32": 183, "bf16": 362, "fp16": 362},
            "NVIDIA L40S GPU datasheet (2023)",
        ),
        _card(
            "h100",
            79.10,
            "least of torch's messages of exhausted memory on 80 GB cards: 79.10 to 79.19 GiB",
            ((9, 0), 132, 2048),
            3350,
            {"fp32": 67, "tf32": 494, "bf16": 989, "fp16": 989, "fp8": 1979},
            "NVIDIA H100 Tensor Core GPU datasheet (2023), SXM",
        ),
        _card(
            "h200",
            139.72,
            "least of torch's messages of exhausted memory: 139.72 to 139.81 GiB",
            ((9, 0), 132, 2048),
            4800,
            {"fp32": 67, "tf32": 494, "bf16": 989, "fp16": 989, "fp8": 1979},
            "NVIDIA H200 Tensor Core GPU datasheet (2024), SXM",
            HOPPER_CONTEXTS,
        ),
        _card(
            "rtx-5090",
            31.37,
            _OOM + "github.com/Wan-Video/Wan2.1/issues/465",
            ((12, 0), 170, 1536),
            1792,
            {"fp32": 104.8, "tf32": 104.8, "bf16": 209.5, "fp16": 209.5},
            "NVIDIA RTX Blackwell whitepaper (2025)",
        ),
        _card(
            "rtx-pro-6000",
            94.97,
            "cudaMemGetInfo in github.com/antirez/ds4/issues/431",
            ((12, 0), 188, 1536),
            1792,
            {"fp32": 125.9, "tf32": 251.9, "bf16": 503.8, "fp16": 503.8},
            "NVIDIA RTX Blackwell PRO whitepaper (2025), Workstation Edition",
        ),
        _card(
            "b200",
            178.35,
            "deviceQuery in github.com/pytorch/ao/pull/4002",
            ((10, 0), 148, 2048),
            7672,
            {"fp32": 75, "tf32": 1125, "bf16": 2250, "fp16": 2250, "fp8": 4500},
            "NVIDIA DGX B200 datasheet (2024); bandwidth: pytorch/ao pull request 4002",
        ),
    )
}


def find_device(text: str) -> DeviceSpec:
    """A card by its name, or a device of so much memory.

    Args:
        text: ``"a100-40gb"``, ``"NVIDIA A100 40GB"``, or ``"24GiB"`` for any other device.

    Raises:
        UsageError: no card, or several, are called that.
    """
    if _A_SIZE.fullmatch(text):
        memory = parse_bytes(text)
        if not memory:
            raise UsageError(f"a device has more than nothing, but got {text!r}")
        return DeviceSpec(
            name=format_bytes(memory),
            memory_bytes=memory,
            capability=UNKNOWN.capability,
            multiprocessors=UNKNOWN.multiprocessors,
            threads_per_multiprocessor=UNKNOWN.threads_per_multiprocessor,
        )
    return _called(text, "a device is its memory, e.g. 24GiB, or").device


def _called(text: str, expected: str) -> Card:
    """The card that people call so.

    Raises:
        UsageError: none, which begins with what is ``expected``; or several.
    """
    wanted = _plain(text)
    exact = [name for name in CATALOGUE if _plain(name) == wanted]
    found = exact or [
        name for name in CATALOGUE if wanted and wanted in _plain(name) and _names_chip(text, name)
    ]
    if len(found) == 1:
        return CATALOGUE[found[0]]
    if found:
        raise UsageError(f"{text!r} may be any of {', '.join(found)}")
    near = get_close_matches(text.lower(), CATALOGUE, n=3)
    meant = f"; did you mean {' or '.join(near)}?" if near else ""
    raise UsageError(f"{expected} one of {', '.join(CATALOGUE)}; but got {text!r}{meant}")


def _names_chip(text: str, name: str) -> bool:
    """Whether a text has the whole word of a card that tells its chip: h10 is no h100."""
    chip = next(word for word in name.split("-") if any(c.isdigit() for c in word))
    return any(word.endswith(chip) for word in _WORDS.findall(text.lower()))


def device_like(name: str, memory_bytes: int) -> DeviceSpec:
    """A device that is here, by what torch tells of it, with the chip of the card it is.

    Args:
        name: as CUDA reports it, ``"NVIDIA A100-SXM4-40GB"``.
        memory_bytes: likewise.
    """
    near = [
        card.device
        for card in CATALOGUE.values()
        if abs(card.device.memory_bytes / memory_bytes - 1) < SAME_CARD
        and _plain(_MEMORY_SUFFIX.sub("", card.device.name)) in _plain(name)
    ]
    chip = max(near, key=lambda device: len(device.name), default=UNKNOWN)
    return replace(chip, name=name, memory_bytes=memory_bytes)


def card_named(text: str) -> Card:
    """A card of the catalogue, with its data sheet, by what people call it.

    Raises:
        UsageError: no card, or several, are called that.
    """
    return _called(text, "a card with a data sheet is")


def card_of(name: str, memory_bytes: int) -> Card | None:
    """The card that a device is; None where the catalogue has none like it.

    Args:
        name: as CUDA reports it.
        memory_bytes: likewise; 0 where it is not known, and the name has to tell.
    """
    if memory_bytes:
        chip = device_like(name, memory_bytes)
        alike = (c for c in CATALOGUE.values() if _chip(c.device) == _chip(chip))
        near = [c for c in alike if abs(c.device.memory_bytes / memory_bytes - 1) < SAME_CARD]
        named = [c for c in near if _names_chip(name, c.device.name)]
        return max(named, key=lambda c: len(c.device.name), default=None)
    with suppress(UsageError):
        return card_named(name)
    return None


def contexts_of(device: DeviceSpec) -> tuple[int, ...]:
    """Bytes that were seen outside torch's allocator on cards of a device's chip; none were where
    it is empty."""
    alike = (card for card in CATALOGUE.values() if _chip(card.device) == _chip(device))
    return next((card.contexts for card in alike if card.contexts), ())


def _chip(device: DeviceSpec) -> tuple[object, ...]:
    return device.capability, device.multiprocessors, device.threads_per_multiprocessor


def _plain(name: str) -> str:
    return _NOISE.sub("", name.lower())
