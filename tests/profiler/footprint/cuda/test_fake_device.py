"""What is looked for before a device is claimed; claiming itself is for a process of its own."""

from __future__ import annotations

import sys

import pytest
import torch

from epochcast.profiler.footprint.cuda import fake_device
from epochcast.profiler.footprint.cuda.fake_device import NoFakeDevice, virtual_functions


def test_the_table_of_hooks_begins_with_a_destructor_and_has_each_name_once():
    names = virtual_functions()
    assert names.count("~") in (0, 2)
    others = [name for name in names if name != "~"]
    assert len(others) == len(set(others))
    assert {"hasCUDA", "hasCuDNN", "deviceCount", "init"} <= set(others)


def test_a_build_without_headers_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(fake_device, "_HEADERS", tmp_path)
    with pytest.raises(NoFakeDevice, match=r"AcceleratorHooksInterface\.h"):
        virtual_functions()


def test_another_system_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(NoFakeDevice, match="Linux"):
        fake_device._require_platform()


def test_an_older_torch_is_refused(monkeypatch):
    monkeypatch.delattr(torch._C, "_acc", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(fake_device.platform, "machine", lambda: "x86_64")
    with pytest.raises(NoFakeDevice, match="device guards"):
        fake_device._require_platform()


def test_a_library_without_the_symbol_is_refused():
    with pytest.raises(NoFakeDevice, match="no_such_symbol"):
        fake_device._symbol("libc10.so", "no_such_symbol")
