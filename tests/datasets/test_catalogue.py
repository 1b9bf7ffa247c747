"""The catalogue of data sets: findable by any spelling, sourced, torch-free."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochcast.datasets import catalogue
from epochcast.errors import UsageError

DTYPES = {"uint8", "int16", "int64", "float64"}


@pytest.mark.parametrize("name", list(catalogue.CATALOGUE))
def test_every_entry_is_complete(name):
    spec = catalogue.CATALOGUE[name]
    assert spec.name == name
    assert spec.source
    assert spec.dtype in DTYPES
    assert all(size > 0 for size in spec.shape)
    assert spec.classes >= 0


def test_no_two_names_are_spelled_alike():
    assert len({catalogue._key(name) for name in list(catalogue.CATALOGUE)}) == len(
        list(catalogue.CATALOGUE)
    )


@given(st.sampled_from(list(catalogue.CATALOGUE)), st.data())
def test_case_spaces_dashes_and_underscores_do_not_matter(name, data):
    separator = data.draw(st.sampled_from(["", " ", "-", "_"]))
    spelled = name.replace("-", separator).replace(" ", separator)
    spelled = data.draw(st.sampled_from([spelled, spelled.upper(), spelled.lower()]))
    assert catalogue.find(spelled) is catalogue.CATALOGUE[name]


@pytest.mark.parametrize(
    ("name", "samples", "eval_samples", "shape", "classes"),
    [
        ("mnist", 60_000, 10_000, (28, 28), 10),
        ("cifar10", 50_000, 10_000, (3, 32, 32), 10),
        ("imagenet1k", 1_281_167, 50_000, (), 1000),
        ("librispeech960h", 28_539 + 104_014 + 148_688, 2_703, (), 0),  # clean 100, 360, other 500
        ("wikitext103", 103_227_021, 217_646, (), 267_735),
    ],
)
def test_known_numbers(name, samples, eval_samples, shape, classes):
    spec = catalogue.find(name)
    assert (spec.samples, spec.eval_samples) == (samples, eval_samples)
    assert (spec.shape, spec.classes) == (shape, classes)


def test_totals_that_the_sources_publish():
    def total(name):
        spec = catalogue.find(name)
        return spec.samples + spec.eval_samples

    assert total("emnist-balanced") == 131_600  # nist.gov, EMNIST dataset summary
    assert total("emnist-letters") == 145_600
    assert total("emnist-digits") == 280_000
    assert total("emnist-byclass") == total("emnist-bymerge") == 814_255
    assert total("food101") == 101 * 1000
    assert total("tiny shakespeare") == 1_115_394
    assert total("higgs") == 11_000_000
    assert total("speech commands v2") + 11_005 == 105_829  # with the test split


def test_embedded_data_sets_agree_with_scikit_learn():
    from sklearn import datasets

    for name in ("digits", "iris", "wine", "breast_cancer", "diabetes"):
        inputs, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
        spec = catalogue.find(name)
        assert spec.samples == len(inputs)
        assert inputs[0].size == (64 if name == "digits" else spec.shape[0])
        assert spec.classes == (0 if name == "diabetes" else len(set(labels)))


def test_an_unknown_name_is_answered_with_close_ones():
    with pytest.raises(UsageError, match=r"did you mean.*CIFAR-10") as caught:
        catalogue.find("cifar-1O")
    assert "\n" not in str(caught.value)


def test_a_strange_name_is_answered_with_where_to_look():
    with pytest.raises(UsageError, match=r"epochcast datasets lists all"):
        catalogue.find("%%%%")


def test_the_catalogue_and_the_readers_load_no_torch():
    modules = "catalogue, local"
    code = f"import sys; from epochcast.datasets import {modules}; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
