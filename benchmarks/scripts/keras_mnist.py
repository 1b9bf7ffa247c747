"""A two-layer perceptron with dropout in Keras 3 on torch: RMSprop, batch size 128, one epoch.

The form of Keras's MNIST example, 60,000 images of 784 pixels and 10,000 to test with; here their
numbers are generated.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import argparse

import keras
import numpy as np
from keras.layers import Dense, Dropout

parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, default=128)
parser.add_argument("--hidden", type=int, default=512)
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--samples", type=int, default=60000)
args = parser.parse_args()

num_classes = 10
rng = np.random.default_rng(0)
x_train = rng.random((args.samples, 784), dtype="float32")
x_test = rng.random((args.samples // 6, 784), dtype="float32")
y_train = keras.utils.to_categorical(rng.integers(0, num_classes, len(x_train)), num_classes)
y_test = keras.utils.to_categorical(rng.integers(0, num_classes, len(x_test)), num_classes)
print(x_train.shape[0], "train samples")
print(x_test.shape[0], "test samples")

model = keras.Sequential()
model.add(keras.Input((784,)))
model.add(Dense(args.hidden, activation="relu"))
model.add(Dropout(0.2))
model.add(Dense(args.hidden, activation="relu"))
model.add(Dropout(0.2))
model.add(Dense(num_classes, activation="softmax"))
model.summary()
model.compile(
    loss="categorical_crossentropy",
    optimizer=keras.optimizers.RMSprop(),
    metrics=["accuracy"],
)

history = model.fit(
    x_train,
    y_train,
    batch_size=args.batch_size,
    epochs=args.epochs,
    verbose=2,
    validation_data=(x_test, y_test),
)
score = model.evaluate(x_test, y_test, verbose=0)
print("Test loss:", score[0])
print("Test accuracy:", score[1])
model.save("mnist.keras")
