"""Data sets: what is known of the public ones, and training data that needs no download.

    catalogue   ``find("CIFAR-10")``: sizes and shapes of well-known data sets, with sources
    samples     as torch data sets: arrays in memory, and random images and texts of given sizes
    local       readers for what is on this machine: copies of MNIST, CIFAR-10 and texts, and
                scikit-learn's handwritten digits, the one real data set that is always at hand
    transforms  the usual augmentations in plain torch

Importing this package loads no torch, and neither do ``catalogue`` and ``local``.
"""
