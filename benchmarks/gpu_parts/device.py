"""The device itself: what it is, how fast it is, what its context takes.

Context bytes are what the driver has given away and the allocator does not hold:
total − free − reserved, read after each first use of a library in a fresh process.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from gpu_parts.child import Situation
from gpu_parts.sensors import Sensors, known, nvidia_smi

PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "scipy",
    "scikit-learn",
    "msgspec",
    "nvidia-",
    "transformers",
)
VARIABLES = ("CUDA", "NVIDIA", "PYTORCH", "TORCH", "CUBLAS", "OMP", "MKL")
SMALL, LARGE = 64, 8192  # side of the matrices that are multiplied
REPEATS = 20


def run(here: Situation) -> None:
    """Play a scenario."""
    play = {"facts": facts, "speed": speed}.get(here.scenario, context)
    play(here)


def facts(here: Situation) -> None:
    """Versions, settings, and all that nvidia-smi says."""
    here.emit("facts", **host())
    if here.on_cuda:
        here.emit("cuda", **cuda())
    else:
        here.skip("driver, properties, sensors", "needs CUDA")


def host() -> dict[str, Any]:
    """The machine and the software."""
    versions = {d.name: d.version for d in distributions() if d.name.startswith(PACKAGES)}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": known(_processor),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "torch_commit": torch.version.git_version,
        "threads": torch.get_num_threads(),
        "versions": dict(sorted(versions.items())),
        "environment": {k: v for k, v in os.environ.items() if k.startswith(VARIABLES)},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))


def cuda() -> dict[str, Any]:
    """What torch and the driver say of the GPU."""
    properties = torch.cuda.get_device_properties(0)
    names = [name for name in dir(properties) if not name.startswith("_")]
    sensors = Sensors()
    return {
        "device": properties.name,
        "total_bytes": properties.total_memory,
        "properties": {name: str(known(lambda n=name: getattr(properties, n))) for name in names},
        "capability": torch.cuda.get_device_capability(0),
        "architectures": torch.cuda.get_arch_list(),
        "cudnn": known(torch.backends.cudnn.version),
        "nccl": known(lambda: torch.cuda.nccl.version()),
        "allocator": known(torch.cuda.get_allocator_backend),
        "tf32_matmul": known(lambda: torch.backends.cuda.matmul.allow_tf32),
        "tf32_convolution": known(lambda: torch.backends.cudnn.allow_tf32),
        "attention": {
            "flash": known(torch.backends.cuda.flash_sdp_enabled),
            "efficient": known(torch.backends.cuda.mem_efficient_sdp_enabled),
            "cudnn": known(torch.backends.cuda.cudnn_sdp_enabled),
            "math": known(torch.backends.cuda.math_sdp_enabled),
        },
        "sensors": sensors.read(),
        "no_sensors": sensors.why_not,
        "nvidia_smi": known(lambda: nvidia_smi("-q")),
    }


# -- context ------------------------------------------------------------------------------------


def context(here: Situation) -> None:
    """Memory after the first use of each library, one after the other."""
    sensors = Sensors()
    stages = [{"stage": "before", "sensors": sensors.read()}]
    for name, first_use in STAGES.items():
        failure = known(first_use)
        stage = {"stage": name, **known(memory), "sensors": sensors.read()}
        stages.append(stage | ({"failure": failure} if isinstance(failure, dict) else {}))
    here.emit("context", module_loading=os.environ.get("CUDA_MODULE_LOADING", ""), stages=stages)


def memory() -> dict[str, int]:
    """What the driver and the allocator say, once all work is done."""
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    reserved = torch.cuda.memory_reserved()
    return {
        "total_bytes": total,
        "free_bytes": free,
        "allocated_bytes": torch.cuda.memory_allocated(),
        "reserved_bytes": reserved,
        "outside_bytes": total - free - reserved,
    }


def _made(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.ones(shape, device="cuda", dtype=dtype, requires_grad=True)


def _init() -> None:
    torch.cuda.init()
    torch.cuda.mem_get_info()


def _kernel() -> None:
    torch.ones(1024, device="cuda").add_(1)


def _multiplied(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return _made(512, 512, dtype=dtype) @ _made(512, 512, dtype=dtype)


def _matmul() -> None:
    with torch.no_grad():
        _multiplied()


def _matmul_backward() -> None:
    _multiplied().sum().backward()


def _linear_bf16() -> None:
    layer = torch.nn.Linear(512, 512, device="cuda", dtype=torch.bfloat16)
    layer(_made(512, 512, dtype=torch.bfloat16)).sum().backward()


def _convolution() -> None:
    with torch.no_grad():
        functional.conv2d(_made(8, 16, 32, 32), _made(32, 16, 3, 3), padding=1)


def _convolution_backward() -> None:
    functional.conv2d(_made(8, 16, 32, 32), _made(32, 16, 3, 3), padding=1).sum().backward()


def _convolution_tuned() -> None:
    torch.backends.cudnn.benchmark = True
    functional.conv2d(_made(8, 64, 32, 32), _made(64, 64, 3, 3), padding=1).sum().backward()


def _attention(dtype: torch.dtype) -> Callable[[], None]:
    def first_use() -> None:
        query, key, value = (_made(4, 8, 256, 64, dtype=dtype) for _ in range(3))
        mixed = functional.scaled_dot_product_attention(
            query, key, value, dropout_p=0.1, is_causal=True
        )
        mixed.sum().backward()

    return first_use


def _batch_norm() -> None:
    torch.nn.BatchNorm2d(16, device="cuda")(_made(8, 16, 32, 32)).sum().backward()


def _optimizer() -> None:
    layer = torch.nn.Linear(512, 512, device="cuda")
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(_made(8, 512)).sum().backward()
    optimizer.step()


def _sort() -> None:
    torch.randint(0, 100, (100_000,), device="cuda").sort()


STAGES: dict[str, Callable[[], None]] = {
    "init": _init,
    "first kernel": _kernel,
    "cuBLAS": _matmul,
    "cuBLAS, backward": _matmul_backward,
    "linear layer in bf16": _linear_bf16,
    "convolution": _convolution,
    "convolution, backward": _convolution_backward,
    "convolution, tuned": _convolution_tuned,
    "batch norm": _batch_norm,
    "attention in fp32": _attention(torch.float32),
    "attention in bf16": _attention(torch.bfloat16),
    "AdamW": _optimizer,
    "sort": _sort,
}


# -- speed --------------------------------------------------------------------------------------


def speed(here: Situation) -> None:
    """Products of matrices, copies, the cost of a launch: what a cost model's terms come from."""
    side = SMALL if here.dry else LARGE
    sensors = Sensors()
    before = sensors.read()
    found = {
        f"matmul_{name}_flops_per_second": known(lambda d=dtype: matmul_speed(d, side, here.device))
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    if here.on_cuda:
        found["matmul_tf32_flops_per_second"] = known(lambda: tf32_speed(side, here.device))
        found |= {f"copy_{name}_bytes_per_second": known(ask) for name, ask in COPIES.items()}
    else:
        here.skip("TF32, copies to and from the device", "needs CUDA")
    found["launch_seconds"] = launch_seconds(here.device)
    here.emit("speed", side=side, before=before, after=sensors.read(), **found)


def timed(work: Callable[[], object], device: str, repeats: int = REPEATS) -> float:
    """Seconds of one of several calls, made one after the other, once all is warm.

    Args:
        work: what is called.
        device: that is waited for.
        repeats: how often it is called.
    """
    for _ in range(3):
        work()
    _wait(device)
    began = time.perf_counter()
    for _ in range(repeats):
        work()
    _wait(device)
    return (time.perf_counter() - began) / repeats


def matmul_speed(dtype: torch.dtype, side: int, device: str) -> float:
    """Floating-point operations per second of a product of square matrices of random numbers.

    Args:
        dtype: of the matrices.
        side: rows and columns of each.
        device: of torch.
    """
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / timed(lambda: a @ b, device)


def tf32_speed(side: int, device: str) -> float:
    """The same of fp32 where tensor cores may round its inputs."""
    torch.set_float32_matmul_precision("high")
    return matmul_speed(torch.float32, side, device)


def launch_seconds(device: str) -> float:
    """Seconds of one of many tiny operators: what a step of tiny operators is bound by."""
    x = torch.zeros(1, device=device)
    return timed(lambda: x.add_(1), device, repeats=2000)


def _copy_on_device() -> float:
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * 2**30 / timed(lambda: target.copy_(source), "cuda")  # read and written


def _copy_to_device(pinned: bool) -> float:
    source = torch.ones(2**28, dtype=torch.uint8, pin_memory=pinned)
    target = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    return 2**28 / timed(lambda: target.copy_(source, non_blocking=pinned), "cuda", 5)


COPIES: dict[str, Callable[[], float]] = {
    "on_device": _copy_on_device,
    "pinned_to_device": lambda: _copy_to_device(True),
    "pageable_to_device": lambda: _copy_to_device(False),
}


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
