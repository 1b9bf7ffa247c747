"""Data sets: what is known of the public ones, and training data that needs no download.

    catalogue   ``find("CIFAR-10")``: sizes and shapes of well-known data sets, with sources
    synthetic   random images and texts of given sizes; item i depends on (seed, i) alone
    local       readers for what is on this machine: copies of MNIST, CIFAR-10 and texts, and
                scikit-learn's handwritten digits, the one real data set that is always at hand
    stored      arrays in memory as torch data sets
    transforms  the usual augmentations in plain torch

Importing this package loads no torch, and neither do ``catalogue`` and ``local``.
"""
