"""The text of PYTORCH_CUDA_ALLOC_CONF, as torch reads it."""

import pytest

from epochcast.devices.allocator_settings import (
    MIB,
    AllocatorSettings,
    from_environment,
    parse_settings,
)
from epochcast.errors import UsageError


def test_nothing_is_set_by_default() -> None:
    assert parse_settings("") == AllocatorSettings()
    assert AllocatorSettings().large_segment_size == 20 * MIB


def test_each_setting_has_its_effect() -> None:
    text = (
        "max_split_size_mb:128, max_non_split_rounding_mb:30,garbage_collection_threshold:0.6,"
        "expandable_segments:True,large_segment_size_mb:40,per_process_memory_fraction:0.5"
    )
    assert parse_settings(text) == AllocatorSettings(
        max_split_size=128 * MIB,
        max_non_split_rounding=30 * MIB,
        garbage_collection_threshold=0.6,
        expandable_segments=True,
        large_segment_size=40 * MIB,
        memory_fraction=0.5,
    )


@pytest.mark.parametrize(
    ("value", "divisions"),
    [
        ("8", (8,) * 16),
        ("[256:1,512:2,1024:4,>:8]", (1,) * 9 + (2, 4) + (8,) * 5),
        ("[64:8,256:4]", (8,) * 7 + (0, 4) + (0,) * 7),
        ("[1:2,>:0]", (2,) + (0,) * 15),
        ("[131072:4]", (4,) * 16),
    ],
)
def test_divisions_by_size(value, divisions) -> None:
    """The first key holds for all below it, ``>`` for all above the last; gaps are 0."""
    assert parse_settings(f"roundup_power2_divisions:{value}").divisions == divisions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_split:3", "allocator settings are backend, .* but got 'max_split'"),
        ("expandable_segments", "NAME:VALUE, but got 'expandable_segments'"),
        ("expandable_segments:yes", "True or False, but got 'yes'"),
        ("max_split_size_mb:19", "whole number of MiB from 20 on, but got '19'"),
        ("garbage_collection_threshold:1.5", "at most 1, but got '1.5'"),
        ("garbage_collection_threshold:half", "at most 1, but got 'half'"),
        ("roundup_power2_divisions:3", "powers of two, or 0, but got '3'"),
        ("roundup_power2_divisions:[3:4]", "powers of two, but got '3'"),
        ("backend:cudaMallocAsync", "native: .* but got 'cudaMallocAsync'"),
    ],
)
def test_refused(text, message) -> None:
    with pytest.raises(UsageError, match=message):
        parse_settings(text)


def test_what_changes_no_size_is_known() -> None:
    text = "pinned_use_cuda_host_register:True,release_lock_on_cudamalloc:True,backend:native"
    assert parse_settings(text) == AllocatorSettings()


def test_the_first_variable_that_is_set_counts() -> None:
    both = {
        "PYTORCH_ALLOC_CONF": "max_split_size_mb:30",
        "PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:40",
    }
    assert from_environment(both).max_split_size == 40 * MIB
    assert from_environment({"PYTORCH_ALLOC_CONF": "max_split_size_mb:30"}).max_split_size == (
        30 * MIB
    )
    assert from_environment({"HOME": "/"}) == AllocatorSettings()
