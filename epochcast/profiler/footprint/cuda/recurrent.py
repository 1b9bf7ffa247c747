"""Recurrent layers as a CUDA build computes them, in one call of cuDNN.

    lstm │ gru │ rnn_tanh │ rnn_relu ──▶ _cudnn_rnn ──▶ _cudnn_rnn_backward
                                          output, states and a reserve for the backward pass

Sources: aten/src/ATen/native/RNN.cpp (``lstm``, ``gru``), aten/src/ATen/native/cudnn/RNN.cpp
(``_cudnn_impl``, ``_cudnn_rnn``, ``_cudnn_rnn_backward_weight``).
"""

from __future__ import annotations

import torch

_libraries: list[torch.library.Library] = []


def install(key: str = "AutogradCUDA") -> None:
    """Let recurrent layers be computed as above.

    Args:
        key: of the dispatcher, for tensors of which it is.
    """
