"""What a sequence of two steps says of small networks: closed forms, and laws of any training."""

from __future__ import annotations

from itertools import pairwise

import pytest
from followed_on_cards import cell, gated, recurrent

from epochcast.profiler.footprint.dry_run import simulate

MIB = 2**20
WORKSPACE, WORKSPACE_OF_HOPPER = 8_519_680, 32 * MIB


def begins(sequence, moment, step):
    return [m.position for m in sequence.marks if (m.moment, m.step) == (moment, step)]


def activations(sequence):
    """Alive when the second step's forward pass ends, beyond what was there before it."""
    live = (0, *sequence.live_bytes())
    return live[begins(sequence, "backward", 2)[-1]] - live[begins(sequence, "forward", 2)[-1]]


def total(sequence, kind):
    """Bytes of all blocks of a kind, made once each."""
    pairs = zip(sequence.block_bytes, sequence.block_kinds, strict=True)
    return sum(size for size, of in pairs if of == kind)


def made(sequence, first, last):
    """Sizes and frees between two positions, with the blocks by their order of appearance."""
    return [
        sequence.block_bytes[event - 1] if event > 0 else 0 for event in sequence.events[first:last]
    ]


# -- what is there ---------------------------------------------------------------------------------


def test_parameters_states_and_inputs_of_a_perceptron(followed):
    sequence, floats = followed("mlp"), 4
    parameters = floats * (64 * 128 + 128 + 128 * 10 + 10)
    assert total(sequence, "parameter") == parameters
    assert total(sequence, "optimizer") == 2 * parameters  # counters stay on the CPU
    assert total(sequence, "gradient") == 2 * parameters  # of two steps
    assert total(sequence, "input") == 2 * (32 * 64 * floats + 32 * 8)


def test_a_step_of_ones_own_allocates_what_the_same_one_made_here_does(followed):
    own, ours = followed("mlp by itself"), followed("mlp")
    kinds = set(ours.block_kinds) - {"activation", "other"}  # told apart by its backward pass
    assert {k: total(own, k) for k in kinds} == {k: total(ours, k) for k in kinds}
    assert sum(own.block_bytes) == sum(ours.block_bytes)
    assert max(own.live_bytes()) == max(ours.live_bytes())
    assert [m.moment for m in own.marks if m.step == 2] == ["batch", "forward", "update", "forward"]


def test_an_optimizer_of_another_model_is_refused_here_too(followed):
    with pytest.raises(AssertionError, match="none of the parameters of SGD got a gradient"):
        followed("mlp of another")


@pytest.mark.parametrize("name", ["mlp averaged", "mlp averaged by itself"])
def test_averages_of_the_weights_are_kept_between_steps(followed, name):
    sequence, plain = followed(name), followed("mlp")
    parameters = total(plain, "parameter")
    assert total(sequence, "kept") == parameters
    assert total(plain, "kept") == 0
    for kind in ("parameter", "optimizer", "input"):
        assert total(sequence, kind) == total(plain, kind)


def test_cells_of_a_gru_are_one_kernel_that_keeps_five_times_its_state(followed):
    sequence = followed("gru cell")
    assert (sequence.source, sequence.remarks) == ("device", ())
    cells = [
        n
        for n, name in enumerate(sequence.operators)
        if name == "aten._thnn_fused_gru_cell.default"
    ]
    sizes = [
        size
        for size, by in zip(sequence.block_bytes, sequence.block_operators, strict=True)
        if by in cells
    ]
    state = 32 * 32 * 4
    assert sorted(sizes) == sorted(2 * 2 * [state, 5 * state])  # two cells in each of two steps


def test_a_mask_of_dropout_is_one_byte(followed):
    """Linear, ReLU, dropout and its mask, linear, log-softmax, loss and the sum of weights."""
    expected = 3 * 32 * 128 * 4 + 32 * 128 + 2 * 32 * 10 * 4 + 2 * 4
    # of the outputs of linear layers, the first is replaced by ReLU's, the last by log-softmax's
    assert activations(followed("mlp")) == expected - 32 * 128 * 4 - 32 * 10 * 4 - 4 + 4


@pytest.mark.parametrize(
    ("name", "size"), [("mlp", WORKSPACE), ("mlp h100", WORKSPACE_OF_HOPPER), ("cnn", WORKSPACE)]
)
def test_each_thread_has_a_handle_with_a_workspace(followed, name, size):
    sequence = followed(name)
    pairs = zip(sequence.block_bytes, sequence.block_kinds, strict=True)
    assert [bytes_ for bytes_, kind in pairs if kind == "workspace"] == [size, size]


def test_everything_but_what_stays_is_freed(followed):
    sequence = followed("mlp")
    static = sum(total(sequence, kind) for kind in ("parameter", "optimizer", "workspace"))
    assert sequence.live_bytes()[-1] == static


@pytest.mark.parametrize("name", ["mlp", "mlp fp16", "cnn", "encoders"])
def test_no_block_is_freed_twice_or_before_it_is_made(followed, name):
    alive = set()
    for event in followed(name).events:
        if event > 0:
            assert event not in alive
            alive.add(event)
        else:
            alive.remove(-event)


def test_parameters_know_their_module_and_activations_the_users_line(followed):
    sequence = followed("encoders")
    modules = {sequence.modules[m] for m in sequence.block_modules if m >= 0}
    assert "layers.0.self_attn.out_proj" in modules
    assert any(line.startswith("followed_on_cards.py:") for line in sequence.lines)


@pytest.mark.parametrize("name", ["gated", "gated on cpu"])
def test_operators_of_a_cuda_build_are_whole(followed, name):
    """Another build takes them apart: six blocks for the gradient of one SiLU."""
    made = followed(name).operators
    whole = {"silu_backward", "mish_backward", "_fused_rms_norm", "_fused_rms_norm_backward"}
    assert whole <= {operator.split(".")[1] for operator in made}
    assert not {"aten.sigmoid.default", "aten.softplus.default", "aten.rsqrt.default"} & set(made)


def test_marks_are_in_order(followed):
    positions = [mark.position for mark in followed("mlp").marks]
    assert all(a <= b for a, b in pairwise(positions))


# -- settings --------------------------------------------------------------------------------------


def test_accumulation_runs_forward_and_backward_that_often(followed):
    moments = [mark.moment for mark in followed("mlp accumulated").marks]
    step = 2 * ["batch", "forward", "backward"] + ["update"]
    assert moments == ["build", *step, *step]


def test_a_scaler_has_its_scale_and_finds_infinities(followed):
    sequence = followed("mlp fp16")
    assert "aten._amp_foreach_non_finite_check_and_unscale_.default" not in sequence.remarks
    assert total(sequence, "workspace") == 2 * WORKSPACE
    assert activations(sequence) < activations(followed("mlp"))


def test_compilation_is_said_to_be_different(followed):
    (remark,) = followed("mlp compiled").remarks
    assert "torch.compile" in remark


def test_convolutions_have_an_unknown_workspace(followed):
    unknown = followed("cnn").unknown
    assert {u.operator for u in unknown} == {
        "aten.convolution.default",
        "aten.convolution_backward.default",
    }
    assert all(u.low_bytes < u.high_bytes and "cuDNN" in u.reason for u in unknown)


def test_recomputed_layers_keep_their_inputs_alone(followed):
    inputs = 3 * 8 * 128 * 64 * 4
    assert activations(followed("encoders recomputed")) <= inputs
    assert activations(followed("encoders")) > 10 * inputs


# -- recurrent layers ------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "gates"), [("lstm", 4), ("gru", 3), ("lstm on cpu", 4)])
def test_a_recurrent_layer_keeps_its_gates_at_least(followed, name, gates):
    """Two layers of 64, 20 steps of 16 sequences: what more cuDNN keeps, only it knows."""
    sequence = followed(name)
    cells = 2 * 64 * 20 * 16 * 4
    first = next(u for u in sequence.unknown if "keeps for the backward" in u.reason)
    assert sequence.block_bytes[first.block - 1] == first.low_bytes == gates * cells
    assert first.high_bytes > 2 * first.low_bytes


def test_weights_of_a_recurrent_layer_are_one_block_and_their_gradients(followed):
    sequence = followed("lstm")
    weights = 4 * 4 * 64 * (32 + 64 + 2 + 64 + 64 + 2)
    assert sequence.block_bytes.count(weights) == 1 + 2  # and a gradient of each step
    assert sequence.block_bytes[sequence.block_kinds.index("gradient")] in (weights, 4 * 640)


# -- attention with dropout ------------------------------------------------------------------------


def test_an_encoder_without_dropout(followed):
    """208 MiB: no matrix of weights, though it is 256 MiB large."""
    assert activations(followed("encoder")) / MIB == pytest.approx(208.4, abs=0.5)


def test_dropout_adds_outputs_and_masks_of_three_layers(followed):
    """Two dropouts of the width and one of four times it: of each a mask, and a new output."""
    elements = 8 * 1024 * 512
    masks, outputs = (1 + 1 + 4) * elements, 4 * 4 * elements
    more = activations(followed("encoder dropout")) - activations(followed("encoder"))
    assert more == pytest.approx(masks + outputs, rel=0.001)


def test_data_in_memory_is_not_the_devices(followed):
    """64 samples of 64 floats lie beside the model."""
    parameters = total(followed("mlp"), "parameter")
    assert total(followed("mlp on cpu"), "parameter") == parameters


def test_the_cpus_operators_tell_nearly_the_same(followed):
    exact, counted = followed("encoder dropout"), followed("encoder dropout on cpu")
    assert counted.source == "cpu"
    (interval,) = (u for u in counted.unknown if "CPU" in u.reason)
    assert counted.peak_bytes() == pytest.approx(exact.peak_bytes(), rel=0.05)
    assert interval.high_bytes == pytest.approx(0.1 * counted.peak_bytes(), rel=0.01)


# -- floating-point operations ---------------------------------------------------------------------


def test_flops_of_a_perceptron_are_those_of_its_products(followed):
    """Both layers forward and for their weights; the first one's input needs no gradient."""
    for name in ("mlp", "mlp accumulated", "mlp fp16", "mlp by itself", "mlp on cpu"):
        by_module = dict(followed(name).flops_by_module)
        assert by_module == {"0": 2 * 2 * 32 * 64 * 128, "3": 3 * 2 * 32 * 128 * 10}


def test_flops_of_a_convolution_are_those_of_its_positions(followed):
    positions, weights = 8 * 32 * 32, 3 * 16 * 3 * 3
    by_module = dict(followed("cnn").flops_by_module)
    assert by_module == {"body.0": 2 * 2 * positions * weights, "head": 3 * 2 * 8 * 16 * 10}


def test_fused_attention_computes_its_scores_once_more_going_back(followed):
    """Two products forward and five going back (Dao et al. 2022, algorithm 4), dropout or not."""
    batch, tokens, width = 8, 1024, 512
    linear = 2 * batch * tokens * width**2
    expected = 3 * 12 * linear - 3 * linear + 7 * 2 * batch * tokens**2 * width
    for name in ("encoder", "encoder dropout", "encoder dropout bf16", "encoder dropout on cpu"):
        assert followed(name).flops == expected


def test_checkpointing_adds_a_forward_pass(followed):
    batch, tokens, width, layers = 8, 128, 64, 3
    forward = 2 * batch * tokens * 12 * width**2 + 2 * 2 * batch * tokens**2 * width
    assert followed("encoders recomputed").flops - followed("encoders").flops == layers * forward


@pytest.mark.parametrize("name", ["gated", "lstm", "gru cell"])
def test_without_attention_the_cpu_takes_as_many_flops(followed, name):
    build = {"gated": gated, "lstm": recurrent, "gru cell": cell}[name]
    (counted,) = simulate(build)
    assert followed(name).flops == counted.footprint.flops > 0


def test_what_has_no_formula_is_named(followed):
    (remark,) = followed("spectral").remarks
    assert remark.startswith("FLOPs of operators without a formula are not counted: ")
    assert "aten._fft_r2c.default (1 ×)" in remark
    assert followed("spectral").flops == followed("mlp").flops
