"""A CUDA device that is not there: fake tensors may claim it, and torch dispatches as on a card.

    FakeTensorMode     refuses "cuda" unless …            here
    autograd           asks a device guard for streams    DeviceGuard of type CUDA, registered
    kernels' choice    asks at::detail::getCUDAHooks      a copy of its vtable, answers replaced
    Python             asks torch.cuda                    functions replaced
    optimizers         ask for the types of foreach       FakeTensor is one of them

All of it is private to one build of torch, so each part is looked for before it is used, and what
is missing is said as ``NoFakeDevice``. It cannot be undone: whoever installs it is a process of its
own, which does nothing else. It must be installed before the process's first backward pass.
"""

from __future__ import annotations

import atexit
import ctypes
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from epochcast.records import DeviceSpec

_Pointer = ctypes.c_void_p
_LIBRARIES = Path(torch.__file__).parent / "lib"
_HEADERS = Path(torch.__file__).parent / "include" / "ATen" / "detail"
_GUARDS = "_ZN3c104impl26device_guard_impl_registryE"  # c10/core/impl/DeviceGuardImplInterface.h
_HOOKS = "_ZN2at6detail12getCUDAHooksEv"  # aten/src/ATen/detail/CUDAHooksInterface.h
_CUDA, _PRIVATE_USE = 1, 20  # c10::DeviceType
_DEVICE_TYPES = 22  # c10::COMPILE_TIME_MAX_DEVICE_TYPES
_CUDNN_VERSION = 91900  # what torch 2.13's wheels bring
_keep: list[Any] = []  # what C++ points to
current: list[DeviceSpec] = []  # the device that is claimed, once one is


class NoFakeDevice(Exception):
    """This build of torch cannot be made to follow a device that is not there; says why."""


def install(device: DeviceSpec) -> None:
    """Claim a device, or another one than before.

    Raises:
        NoFakeDevice: this build lacks what it takes.
    """
    if not current:
        _require_platform()
        _install_guard()
        _install_hooks()
        _install_python()
        _prove()
    current[:] = [device]


def _require_platform() -> None:
    if not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "aarch64"):
        raise NoFakeDevice("it is known for Linux on x86-64 and ARM alone")
    if not hasattr(torch._C, "_acc") or not hasattr(torch._C._acc, "DeviceGuard"):
        raise NoFakeDevice(f"torch {torch.__version__} has no device guards in Python")


def _symbol(library: str, name: str) -> Any:
    try:
        return getattr(ctypes.CDLL(str(_LIBRARIES / library)), name)
    except (OSError, AttributeError) as error:
        raise NoFakeDevice(f"{library} of torch {torch.__version__} has no {name}") from error


def _install_guard() -> None:
    """A guard of type CUDA, registered in the private slot and moved to CUDA's."""
    address = ctypes.cast(_symbol("libc10.so", _GUARDS), _Pointer).value
    registry = (_Pointer * _DEVICE_TYPES).from_address(address or 0)

    class FakeCudaGuard(torch._C._acc.DeviceGuard):
        def type_(self) -> Any:
            return torch._C._autograd.DeviceType.CUDA

    guard = FakeCudaGuard()
    _keep.append(guard)
    torch._C._acc.register_python_privateuseone_device_guard(guard)
    if not registry[_PRIVATE_USE]:
        raise NoFakeDevice("the registry of device guards is laid out in another way")
    registry[_CUDA], registry[_PRIVATE_USE] = registry[_PRIVATE_USE], None


def virtual_functions() -> list[str]:
    """Names of the slots in the vtable of CUDA's hooks, in order, from the build's own headers.

    Raises:
        NoFakeDevice: the headers are missing.
    """
    names: list[str] = []
    for file in ("AcceleratorHooksInterface.h", "CUDAHooksInterface.h"):
        try:
            text = re.sub(r"//.*", "", (_HEADERS / file).read_text("utf-8"))
        except OSError as error:
            raise NoFakeDevice(f"the build has no header {file}") from error
        for found in re.finditer(
            r"virtual\s+([^;{]*?)(~?\b\w+)\s*\(", text[text.index("Interface") :]
        ):
            name = found.group(2)
            if name.startswith("~"):  # two entries, once: complete and deleting destructor
                names += ["~", "~"] if "~" not in names else []
            elif name not in names:
                names.append(name)
    return names


def _answers() -> dict[str, Any]:
    boolean, integer = ctypes.CFUNCTYPE(ctypes.c_bool, _Pointer), ctypes.c_int
    of_index = ctypes.CFUNCTYPE(ctypes.c_bool, _Pointer, ctypes.c_int8)
    index = ctypes.CFUNCTYPE(ctypes.c_int8, _Pointer)
    version = ctypes.CFUNCTYPE(ctypes.c_long, _Pointer)
    real = ctypes.CFUNCTYPE(ctypes.c_double, _Pointer)

    def yes(*_: Any) -> bool:
        return True

    names = (
        "hasCUDA isBuilt isAvailable hasCUDART hasCuDNN compiledWithCuDNN "
        "supportsDilatedConvolutionWithCuDNN supportsDepthwiseConvolutionWithCuDNN "
        "supportsBFloat16ConvolutionWithCuDNNv8 supportsBFloat16RNNWithCuDNN"
    )
    return {
        **{name: boolean(yes) for name in names.split()},
        "hasPrimaryContext": of_index(yes),
        "deviceCount": index(lambda _: 1),
        "getCurrentDevice": index(lambda _: 0),
        "current_device": index(lambda _: 0),
        "getNumGPUs": ctypes.CFUNCTYPE(integer, _Pointer)(lambda _: 1),
        "init": ctypes.CFUNCTYPE(None, _Pointer)(lambda _: None),
        "versionCuDNN": version(lambda _: _CUDNN_VERSION),
        "versionRuntimeCuDNN": version(lambda _: _CUDNN_VERSION),
        "batchnormMinEpsilonCuDNN": real(lambda _: 1e-5),
    }


def _install_hooks() -> None:
    """Point the object that answers for CUDA to a copy of its vtable with answers of our own."""
    get = _symbol("libtorch_cpu.so", _HOOKS)
    get.restype = _Pointer
    vtable = _Pointer.from_address(get())
    names, answers = virtual_functions(), _answers()
    size = len(names) + 8  # two entries before the functions; some of derived classes behind
    old = vtable.value
    if old is None:
        raise NoFakeDevice("CUDA's hooks have no table of functions")
    word = ctypes.sizeof(_Pointer)
    copied = (_Pointer * (size + 2)).from_address(old - 2 * word)
    table = (_Pointer * (size + 2))(*(copied[i] for i in range(size + 2)))
    for name, function in answers.items():
        if name in names:  # a build without it does not ask
            table[names.index(name) + 2] = ctypes.cast(function, _Pointer).value
    if not {"hasCUDA", "hasCuDNN", "deviceCount"} <= set(names):
        raise NoFakeDevice("the hooks of CUDA ask other questions in this build")
    _keep.append((table, answers))
    vtable.value = ctypes.addressof(table) + 2 * word
    atexit.register(setattr, vtable, "value", old)  # torch calls it once more as it is unloaded


def _properties(*_: Any) -> Any:
    device = current[0]
    return SimpleNamespace(
        name=device.name,
        major=device.capability[0],
        minor=device.capability[1],
        total_memory=device.memory_bytes,
        multi_processor_count=device.multiprocessors,
        max_threads_per_multi_processor=device.threads_per_multiprocessor,
        warp_size=32,
        is_integrated=False,
        gcnArchName="",
    )


def _always(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def _is_bf16_supported(including_emulation: bool = True) -> bool:
    return including_emulation or current[0].capability >= (8, 0)


def _install_python() -> None:
    from torch._subclasses import fake_tensor
    from torch.optim import optimizer

    vars(fake_tensor)["init_gpu_context"] = _always(None)
    setattr(fake_tensor.FakeTensorMode, "avoid_device_init", property(_always(True)))  # noqa: B010
    if fake_tensor.FakeTensor not in optimizer._foreach_supported_types:
        optimizer._foreach_supported_types.append(fake_tensor.FakeTensor)
    replaced: dict[str, Callable[..., Any]] = {
        "is_available": _always(True),
        "is_initialized": _always(True),
        "device_count": _always(1),
        "current_device": _always(0),
        "get_device_capability": lambda *_: current[0].capability,
        "get_device_name": lambda *_: current[0].name,
        "get_device_properties": _properties,
        "is_bf16_supported": _is_bf16_supported,
        "is_current_stream_capturing": _always(False),
        "mem_get_info": lambda *_: (current[0].memory_bytes, current[0].memory_bytes),
    }
    silenced = (
        "_lazy_init synchronize empty_cache set_device manual_seed manual_seed_all "
        "reset_peak_memory_stats"
    )
    indices = "_exchange_device _maybe_exchange_device"
    counted = "memory_allocated memory_reserved max_memory_allocated max_memory_reserved"
    # a function of its own for each name: dynamo refuses one that it meets under two
    replaced |= {name: _always(None) for name in silenced.split()}
    replaced |= {name: _always(0) for name in f"{indices} {counted}".split()}
    for name, function in replaced.items():
        setattr(torch.cuda, name, function)
    for name in ("range_push", "range_pop", "mark"):
        setattr(torch.cuda.nvtx, name, _always(0))
    torch._C._cuda_getCurrentRawStream = _always(0)
    torch.cuda.graphs.is_current_stream_capturing = _always(False)
    torch.backends.cudnn.version = _always(_CUDNN_VERSION)


def _prove() -> None:
    """One step of a small network, or it does not work."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    try:
        with FakeTensorMode():
            weight = torch.ones(3, 3, device="cuda", requires_grad=True)
            (torch.ones(2, 3, device="cuda") @ weight).sum().backward()  # type: ignore[no-untyped-call]
    except Exception as error:
        raise NoFakeDevice(f"a fake step failed: {error}") from error
    if weight.grad is None or weight.grad.device.type != "cuda":
        raise NoFakeDevice("a fake step gave no gradient on the device")
