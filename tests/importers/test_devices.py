"""Device counts: read where the arithmetic is clear, asked for where it is not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochcast.errors import StoreError
from epochcast.importers.columns import ImportOptions
from epochcast.importers.runs import Imported, read

SAID = ImportOptions(workload="w", device="NVIDIA A100", samples=50_000)


def imported(text: str, options: ImportOptions = SAID) -> Imported:
    return read(text, options)


def devices(columns: str, values: str, options: ImportOptions = SAID) -> int:
    (found,) = imported(f"bs,step_ms,{columns}\n32,50,{values}\n", options).measurements
    assert found.config.sizes == ()
    return found.config.world_size


@pytest.mark.parametrize(
    ("columns", "values", "count"),
    [
        ("nodes,gpus_per_node", "2,4", 8),
        ("num_nodes,nproc_per_node", "3,8", 24),
        ("NNodes,ntasks-per-node", "1,4", 4),
        ("machines,gpus/node", "2,2", 4),
        ("nodes,gpus_per_node,world_size", "2,4,8", 8),
        ("nodes,world_size", "2,8", 8),
        ("nodes,num_gpus", "1,4", 4),
        ("nodes,total_gpus", "2,8", 8),
        ("dp", "4", 4),
        ("data_parallel_size", "4", 4),
        ("n_devices,tp_size,pp_size", "8,1,1", 8),
        ("num_gpus,tensor_parallel,pipeline_parallel", "2,1,1", 2),
        ("num_replicas", "16", 16),
    ],
)
def test_what_is_clear_is_read(columns: str, values: str, count: int) -> None:
    assert devices(columns, values) == count


@pytest.mark.parametrize(
    ("columns", "values", "asked"),
    [
        ("gpus_per_node", "4", "gpus_per_node 4 does not say how many nodes there were"),
        ("nodes", "2", "nodes 2 does not say how many devices a node has"),
        ("num_nodes,devices", "2,4", "is devices 4 of each of the 2 nodes, or of all of them"),
        ("nodes,gpus_per_node,num_gpus", "2,4,6", "are 8 devices, but num_gpus 6 says otherwise"),
        ("num_gpus,dp", "8,4", "num_gpus 8 are 8 devices, but dp 4 says otherwise"),
        ("num_gpus,tp_size", "8,2", "tp_size 2: one copy of the model on several devices"),
        ("dp,pp", "4,2", "pp 2: one copy of the model on several devices"),
        ("world_size,context_parallel_size", "8,2", "context_parallel_size 2: one copy"),
    ],
)
def test_what_is_not_is_asked(columns: str, values: str, asked: str) -> None:
    with pytest.raises(StoreError, match=asked):
        devices(columns, values)


def test_an_option_and_a_mapping_answer() -> None:
    option = ImportOptions(workload="w", device="NVIDIA A100", samples=50_000, devices=16)
    assert devices("gpus_per_node", "4", option) == 16
    assert devices("num_nodes,devices", "2,8", option) == 16
    for said, count in (("devices_per_node", 8), ("world_size", 4)):
        mapped = ImportOptions(
            workload="w", device="NVIDIA A100", samples=50_000, renamed={"devices": said}
        )
        assert devices("num_nodes,devices", "2,4", mapped) == count


@given(nodes=st.integers(1, 64), each=st.integers(1, 16), micro=st.integers(1, 64))
def test_the_batch_of_all_devices_is_divided_over_all_nodes(
    nodes: int, each: int, micro: int
) -> None:
    rows = f"{micro * nodes * each},{nodes},{each},50"
    (found,) = imported(f"global_batch,nodes,gpus_per_node,step_ms\n{rows}\n").measurements
    assert (found.config.batch_size, found.config.world_size) == (micro, nodes * each)


@pytest.mark.parametrize(
    ("name", "cell", "peak", "device"),
    [
        ("peak_memory_G", "3.5", 3.5 * 2**30, None),
        ("peak_mem_M", "512", 512 * 2**20, None),
        ("peak mem (G)", "2", 2 * 2**30, None),
        ("mem[GiB]", "2", 2 * 2**30, None),
        ("gpu_mem_gb", "2", None, 2e9),
        ("torch_max_mem_reserved_MiB", "512", None, 512 * 2**20),
        ("max_cuda_mem_allocated_mb", "512", 512e6, None),
        ("peakMemGB", "1.5", 1.5e9, None),
        ("vram_GiB", "1.5", 1.5 * 2**30, None),
    ],
)
def test_memory_has_its_unit_in_any_spelling(
    name: str, cell: str, peak: float | None, device: float | None
) -> None:
    (found,) = imported(f"bs,epoch_s,{name}\n32,50,{cell}\n").measurements
    assert found.memory is not None
    assert found.config.sizes == ()
    assert (found.memory.allocated_bytes, found.memory.device_bytes) == (peak, device)


@pytest.mark.parametrize("name", ["avg_gpu_mem_mb", "mean memory (GiB)", "min_free_mem_gb", "GB"])
def test_what_is_not_the_peak_is_left_out(name: str) -> None:
    found = imported(f"bs,epoch_s,{name}\n32,50,100\n")
    assert found.columns[-1].column.label.startswith("left out")
    assert found.measurements[0].memory is None


def test_steps_of_a_job_are_no_runs() -> None:
    """sacct -P writes a row for the job and one for each of its steps."""
    jobs = ("7", "7.batch", "7.extern", "7.0", "8_2", "8_2.batch", "9")
    rows = "".join(f"{job}|32|2|00:10:00|COMPLETED\n" for job in jobs)
    found = imported(f"JobID|bs|epoch|Elapsed|State\n{rows}")
    assert len(found.measurements) == 3
    assert ("count", "4") in next(w for w in found.warnings if w.code == "other-rows").details


def test_the_trainer_counts_optimizer_steps() -> None:
    """0.5 of them a second with 8 accumulated: a micro-batch takes a quarter of a second."""
    head = "per_device_train_batch_size,gradient_accumulation_steps,epoch,"
    (found,) = imported(head + "train_steps_per_second\n16,8,3,0.5\n").measurements
    assert found.step_seconds == (0.25,)
    (found,) = imported(head + "train_samples_per_second\n16,8,3,64\n").measurements
    assert found.step_seconds == (0.25,)


def test_the_one_time_of_all_epochs_holds_a_slow_start() -> None:
    for column, cell in (("train_runtime", "600"), ("samples_per_second", "250")):
        found = imported(f"bs,epoch,{column}\n32,3,{cell}\n")
        assert "one-time" in {w.code for w in found.warnings}
    steady = imported("bs,epoch,epoch_s\n32,3,10\n")
    assert "one-time" not in {w.code for w in steady.warnings}


@pytest.mark.parametrize(
    "name",
    [
        "world",
        "GPUs used",
        "GPU(s)",
        "total_gpu_count",
        "gpus_per_job",
        "num_gpus_total",
        "ddp",
        "cards",
        "n_ranks",
    ],
)
def test_what_may_count_devices_is_asked_and_no_knob(name: str) -> None:
    table = f"bs,step_ms,{name}\n32,50,4\n32,26,8\n"
    with pytest.raises(StoreError, match=r"may count devices: --map '?world_size="):
        imported(table)
    counted = imported(table, replace(SAID, renamed={name: "world_size"})).measurements
    assert [m.config.world_size for m in counted] == [4, 8]
    knob = imported(table, replace(SAID, renamed={name: "cells"})).measurements
    assert [m.config.sizes for m in knob] == [(("cells", 4),), (("cells", 8),)]


@pytest.mark.parametrize("column", ["tokens_per_gpu,4096", "lora_rank,8", "ddp,1", "gpu_kind,a"])
def test_other_words_beside_a_device_are_knobs(column: str) -> None:
    name, value = column.split(",")
    (found,) = imported(f"bs,step_ms,{name}\n32,50,{value}\n").measurements
    assert dict(found.config.sizes).keys() == {name}


def test_two_columns_that_count_the_same_devices_agree_or_are_refused() -> None:
    assert devices("num_gpus,world_size", "4,4") == 4
    with pytest.raises(StoreError, match="num_gpus 4 are 4 devices, but world_size 8 says"):
        devices("num_gpus,world_size", "4,8")
