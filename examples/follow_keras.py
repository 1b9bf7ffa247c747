"""The network and data of digits-mlp in Keras on torch, as long as a plan says.

    epochcast probe digits-mlp
    epochcast plan --epochs 100 --deadline 2m --stop patience=5 --output plan.json
    python examples/follow_keras.py plan.json

Keras' loop costs more than the one that was probed: after the first epochs the plan is made anew.
Stop it with Ctrl-C and start it again: it goes on where it was, with what is left of the budget.
"""

import os
import sys
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"
import keras

import epochcast as ec
from epochcast.datasets.local import load_digits


def network(width: int = 128, depth: int = 2) -> keras.Model:
    hidden = [keras.layers.Dense(width, "relu") for _ in range(depth)]
    model = keras.Sequential([keras.layers.Input((64,)), *hidden, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def main(path: str) -> None:
    plan = ec.Plan.load(path)
    config = plan.chosen.config
    keras.utils.set_random_seed(0)
    sizes: dict[str, Any] = dict(config.sizes)
    model = network(**sizes)
    follow = ec.integrations.keras.FollowPlan(plan, folder="digits-keras")
    model.fit(
        *load_digits(train=True),
        batch_size=config.batch_size,
        epochs=1_000_000,  # the plan knows
        validation_data=load_digits(train=False),
        validation_freq=follow.validation_freq,
        callbacks=[follow],
        verbose=0,
    )
    print(follow.summary())
    model.load_weights(follow.best_checkpoint)
    print(model.evaluate(*load_digits(train=False), verbose=0, return_dict=True))


if __name__ == "__main__":
    main(sys.argv[1])
