"""The catalogue of cards, and how a device is named."""

import pytest

from epochcast.devices.cards import CATALOGUE, contexts_of, device_like, find_device
from epochcast.errors import UsageError

LABELS = {"t4": 16, "rtx-2080-ti": 11, "a30": 24, "a10": 24, "l4": 24, "l40": 48, "l40s": 48}
LABELS |= {"rtx-a4000": 16, "rtx-3060": 12, "rtx-3080": 10, "rtx-3090": 24, "rtx-4060": 8}
LABELS |= {"rtx-4090": 24, "rtx-6000-ada": 48, "h100": 80, "h200": 141, "rtx-5090": 32}
LABELS |= {"rtx-pro-6000": 96}
LABELS |= {"b200": 192, "v100-16gb": 16, "v100-32gb": 32, "a100-40gb": 40, "a100-80gb": 80}


@pytest.mark.parametrize("name", CATALOGUE)
def test_no_card_has_what_its_label_says(name) -> None:
    card = CATALOGUE[name]
    label = LABELS[name] * 2**30
    assert 0.90 * label < card.device.memory_bytes < label
    assert card.memory_source
    assert card.data_sheet
    assert 0 < card.rates["fp32"] < 2e14
    assert 1e11 < card.bandwidth < 1e13


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a100-40gb", "a100-40gb"),
        ("NVIDIA A100 40GB", "a100-40gb"),
        ("Tesla T4", "t4"),
        ("GeForce RTX 3090", "rtx-3090"),
        ("4090", "rtx-4090"),
        ("L40", "l40"),
        ("L40S", "l40s"),
    ],
)
def test_names_as_people_write_them(text, name) -> None:
    assert find_device(text) == CATALOGUE[name].device


def test_the_memory_is_as_traces_report_it() -> None:
    """totalGlobalMem of kineto traces."""
    assert find_device("a100-40gb").memory_bytes == 42_297_524_224
    assert find_device("v100-16gb").memory_bytes == 16_945_512_448


def test_any_other_device_is_its_memory() -> None:
    device = find_device("24GiB")
    assert device.memory_bytes == 24 * 2**30
    assert device.name == "24 GiB"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a100", "'a100' may be any of a100-40gb, a100-80gb"),
        ("gtx-480", "24GiB, or one of t4, .*; but got 'gtx-480'"),
        ("", "one of t4"),
        ("0GiB", "more than nothing"),
        ("h10", "but got 'h10'"),  # which is no h100
        ("rtx-4080", "but got 'rtx-4080'; did you mean .*rtx-4090"),
    ],
)
def test_refused(text, message) -> None:
    with pytest.raises(UsageError, match=message):
        find_device(text)


@pytest.mark.parametrize(
    ("name", "gib", "card"),
    [
        ("NVIDIA A100-SXM4-40GB", 39.4, "a100-40gb"),
        ("NVIDIA A100-SXM4-80GB", 79.3, "a100-80gb"),
        ("NVIDIA L40S", 44.5, "l40s"),
        ("Tesla T4", 14.7, "t4"),
        ("NVIDIA GeForce RTX 4090", 23.6, "rtx-4090"),
    ],
)
def test_a_device_that_is_here_has_the_chip_of_its_card(name, gib, card) -> None:
    found, known = device_like(name, round(gib * 2**30)), CATALOGUE[card].device
    assert (found.name, found.memory_bytes) == (name, round(gib * 2**30))
    assert found.capability == known.capability
    assert found.multiprocessors == known.multiprocessors


def test_a_device_that_nobody_knows_is_taken_for_an_a100() -> None:
    assert device_like("Some GPU", 2**34).multiprocessors == 108
    assert device_like("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 5 * 2**30).capability == (8, 0)


def test_cards_of_one_chip_share_what_was_seen_outside() -> None:
    assert contexts_of(find_device("t4")) == (141_426_688,)
    assert contexts_of(find_device("h100")) == contexts_of(find_device("h200")) != ()
    assert contexts_of(find_device("rtx-3060")) == ()
