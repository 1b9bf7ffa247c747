"""Workloads whose models are other people's code: transformers, built from a configuration.

    gpt2    GPT2LMHeadModel                 Radford et al. 2019; predicts each next token
    bert    BertForSequenceClassification   Devlin et al. 2018; one of two classes per text

Weights are random and texts synthetic: nothing is downloaded. The models are small, so that a
benchmark of many of them takes minutes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import epochcast as ec
from epochcast.datasets.samples import SyntheticTokens

VOCABULARY = 1000
CONTEXT = 32  # tokens of a sample
SAMPLES, EVAL_SAMPLES = 4096, 512
HEAD_WIDTH = 16


def gpt2(layers: int = 2, width: int = 64) -> ec.Workload:
    """A small GPT-2 that predicts each next token."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=width,
        n_layer=layers,
        n_head=width // HEAD_WIDTH,
    )
    return _workload(GPT2LMHeadModel(config), next_token_loss)


def bert(layers: int = 2, width: int = 64) -> ec.Workload:
    """A small BERT that tells two classes of texts apart."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=CONTEXT,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD_WIDTH,
    )
    return _workload(BertForSequenceClassification(config), class_loss)


def next_token_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The model shifts the labels itself."""
    tokens, _ = batch
    loss: Tensor = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    return loss


def class_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Whether the first token is an odd one."""
    tokens, _ = batch
    loss: Tensor = model(input_ids=tokens, labels=tokens[:, 0] % 2).loss
    return loss


def _workload(model: nn.Module, loss: Any) -> ec.Workload:
    return ec.Workload(
        model=model,
        train_data=_texts(SAMPLES, train=True),
        eval_data=_texts(EVAL_SAMPLES, train=False),
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-4),
        forward=loss,
        batch_size=8,
        data_source="synthetic",
    )


def _texts(samples: int, train: bool) -> Dataset[tuple[Tensor, Tensor]]:
    return SyntheticTokens(samples * CONTEXT + 1, VOCABULARY, CONTEXT, train=train)
