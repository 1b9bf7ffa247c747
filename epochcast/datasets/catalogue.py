"""Well-known data sets: how many samples, of what shape and type. No torch, no download.

``eval_samples`` is the split that papers report on while they develop: the test split where its
labels are public (MNIST, CIFAR, …), else the validation split (ImageNet, GLUE, …). Shapes follow
torch (channels first); ``()`` where they vary, and for single tokens. Texts that are stored as
documents, and anything else of variable length, have the type of their raw bytes or samples.
Rows of a table are its inputs, without the target; a MovieLens row is (user, film, rating, time).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from types import MappingProxyType

from epochcast.errors import UsageError
from epochcast.records import DatasetSpec

_Row = tuple[str, int, int, tuple[int, ...], int, str]  # name, train, eval, shape, classes, source

_EMNIST = "Cohen et al. 2017, arXiv:1702.05373; split sizes of the files on nist.gov"
_GLUE = "Wang et al. 2018, arXiv:1804.07461; split sizes of huggingface.co/datasets/nyu-mll/glue"
_ZHANG = "Zhang, Zhao, LeCun 2015, arXiv:1509.01626, table 3"
_SKLEARN = "scikit-learn.org, user guide, toy datasets"

_IMAGES: tuple[_Row, ...] = (
    ("MNIST", 60_000, 10_000, (28, 28), 10, "LeCun et al., yann.lecun.com/exdb/mnist"),
    ("Fashion-MNIST", 60_000, 10_000, (28, 28), 10, "Xiao et al. 2017, arXiv:1708.07747"),
    ("KMNIST", 60_000, 10_000, (28, 28), 10, "Clanuwat et al. 2018, arXiv:1812.01718"),
    ("EMNIST-balanced", 112_800, 18_800, (28, 28), 47, _EMNIST),
    ("EMNIST-letters", 124_800, 20_800, (28, 28), 26, _EMNIST),
    ("EMNIST-digits", 240_000, 40_000, (28, 28), 10, _EMNIST),
    ("EMNIST-byclass", 697_932, 116_323, (28, 28), 62, _EMNIST),
    ("EMNIST-bymerge", 697_932, 116_323, (28, 28), 47, _EMNIST),
    ("CIFAR-10", 50_000, 10_000, (3, 32, 32), 10, "Krizhevsky, cs.toronto.edu/~kriz/cifar.html"),
    ("CIFAR-100", 50_000, 10_000, (3, 32, 32), 100, "Krizhevsky, cs.toronto.edu/~kriz/cifar.html"),
    ("SVHN", 73_257, 26_032, (3, 32, 32), 10, "Netzer et al. 2011, ufldl.stanford.edu"),
    ("STL-10", 5_000, 8_000, (3, 96, 96), 10, "Coates et al. 2011, cs.stanford.edu/~acoates/stl10"),
    ("Tiny ImageNet", 100_000, 10_000, (3, 64, 64), 200, "Stanford CS231n, tiny-imagenet-200"),
    ("ImageNet-1k", 1_281_167, 50_000, (), 1000, "Russakovsky et al. 2015, arXiv:1409.0575"),
    ("ImageNet-21k", 14_197_122, 0, (), 21_841, "image-net.org, statistics of the 2011 release"),
    ("Places365", 1_803_460, 36_500, (), 365, "Zhou et al. 2017, places2.csail.mit.edu"),
    ("COCO 2017", 118_287, 5_000, (), 80, "Lin et al. 2014, cocodataset.org, detection 2017"),
    ("Pascal VOC 2012", 5_717, 5_823, (), 20, "host.robots.ox.ac.uk/pascal/VOC/voc2012, detection"),
    ("CelebA", 162_770, 19_867, (3, 218, 178), 0, "Liu et al. 2015, arXiv:1411.7766; aligned"),
    ("Food-101", 75_750, 25_250, (), 101, "Bossard et al. 2014, ECCV"),
    ("Oxford Flowers-102", 1_020, 6_149, (), 102, "Nilsback, Zisserman 2008, robots.ox.ac.uk/~vgg"),
    ("Oxford-IIIT Pet", 3_680, 3_669, (), 37, "Parkhi et al. 2012, robots.ox.ac.uk/~vgg/data/pets"),
    ("Stanford Cars", 8_144, 8_041, (), 196, "Krause et al. 2013, 3dRR"),
    ("CUB-200-2011", 5_994, 5_794, (), 200, "Wah et al. 2011, Caltech CNS-TR-2011-001"),
    ("GTSRB", 39_209, 12_630, (), 43, "Stallkamp et al. 2012, benchmark.ini.rub.de"),
    ("Cityscapes", 2_975, 500, (3, 1024, 2048), 19, "Cordts et al. 2016, arXiv:1604.01685; fine"),
    ("ADE20K", 20_210, 2_000, (), 150, "Zhou et al. 2017, scene parsing benchmark"),
)

_TOKENS: tuple[_Row, ...] = (
    ("WikiText-2", 2_088_628, 217_646, (), 33_278, "Merity et al. 2016, arXiv:1609.07843, table 1"),
    ("WikiText-103", 103_227_021, 217_646, (), 267_735, "Merity et al. 2016, arXiv:1609.07843"),
    ("Penn Treebank", 929_589, 73_760, (), 10_000, "Mikolov et al. 2010; words with line ends"),
    ("OpenWebText", 9_035_582_198, 4_434_897, (), 50_257, "nanoGPT prepare.py; GPT-2 tokens"),
    ("enwik8", 90_000_000, 5_000_000, (), 205, "mattmahoney.net/dc/textdata; 90/5/5 MB split"),
    ("text8", 90_000_000, 5_000_000, (), 27, "mattmahoney.net/dc/textdata; 90/5/5 MB split"),
    ("tiny Shakespeare", 1_003_854, 111_540, (), 65, "Karpathy, char-rnn; nanoGPT's 90/10 split"),
)

_TEXTS: tuple[_Row, ...] = (
    ("C4 en", 364_868_892, 364_608, (), 0, "Raffel et al. 2020, arXiv:1910.10683; TFDS c4/en"),
    ("IMDB", 25_000, 25_000, (), 2, "Maas et al. 2011, ai.stanford.edu/~amaas/data/sentiment"),
    ("AG News", 120_000, 7_600, (), 4, _ZHANG),
    ("DBpedia", 560_000, 70_000, (), 14, _ZHANG),
    ("Yelp Polarity", 560_000, 38_000, (), 2, _ZHANG),
    ("Yelp Full", 650_000, 50_000, (), 5, _ZHANG),
    ("Yahoo Answers", 1_400_000, 60_000, (), 10, _ZHANG),
    ("Amazon Polarity", 3_600_000, 400_000, (), 2, _ZHANG),
    ("20 Newsgroups", 11_314, 7_532, (), 20, "qwone.com/~jason/20Newsgroups, split by date"),
    ("CoLA", 8_551, 1_043, (), 2, _GLUE),
    ("SST-2", 67_349, 872, (), 2, _GLUE),
    ("MRPC", 3_668, 408, (), 2, _GLUE),
    ("QQP", 363_846, 40_430, (), 2, _GLUE),
    ("STS-B", 5_749, 1_500, (), 0, _GLUE),
    ("MNLI", 392_702, 9_815, (), 3, _GLUE + "; matched"),
    ("QNLI", 104_743, 5_463, (), 2, _GLUE),
    ("RTE", 2_490, 277, (), 2, _GLUE),
    ("WNLI", 635, 71, (), 2, _GLUE),
    ("SQuAD 1.1", 87_599, 10_570, (), 0, "Rajpurkar et al. 2016, arXiv:1606.05250"),
    ("SQuAD 2.0", 130_319, 11_873, (), 0, "Rajpurkar et al. 2018, arXiv:1806.03822, table 2"),
    ("WMT14 en-de", 4_508_785, 3_000, (), 0, "statmt.org/wmt14; huggingface.co/datasets/wmt/wmt14"),
)

_AUDIO: tuple[_Row, ...] = (
    ("LibriSpeech 960h", 281_241, 2_703, (), 0, "Panayotov et al. 2015, openslr.org/12; dev-clean"),
    ("Speech Commands v2", 84_843, 9_981, (), 35, "Warden 2018, arXiv:1804.03209"),
)

_ROWS: tuple[_Row, ...] = (
    ("MovieLens-1M", 1_000_209, 0, (4,), 0, "grouplens.org/datasets/movielens/1m"),
    ("MovieLens-20M", 20_000_263, 0, (4,), 0, "grouplens.org/datasets/movielens/20m"),
    ("MovieLens-25M", 25_000_095, 0, (4,), 0, "grouplens.org/datasets/movielens/25m"),
    ("Higgs", 10_500_000, 500_000, (28,), 2, "Baldi et al. 2014, archive.ics.uci.edu/dataset/280"),
    ("Covertype", 581_012, 0, (54,), 7, "Blackard 1998, archive.ics.uci.edu/dataset/31"),
    ("YearPredictionMSD", 463_715, 51_630, (90,), 0, "archive.ics.uci.edu/dataset/203"),
    ("California housing", 20_640, 0, (8,), 0, "Pace, Barry 1997; scikit-learn.org"),
    ("digits", 1_797, 0, (8, 8), 10, _SKLEARN),
    ("Iris", 150, 0, (4,), 3, _SKLEARN),
    ("Wine", 178, 0, (13,), 3, _SKLEARN),
    ("Breast cancer", 569, 0, (30,), 2, _SKLEARN),
    ("Diabetes", 442, 0, (10,), 0, _SKLEARN),
)


def _specs(rows: tuple[_Row, ...], unit: str, dtype: str) -> dict[str, DatasetSpec]:
    return {
        name: DatasetSpec(
            name=name,
            samples=samples,
            eval_samples=eval_samples,
            shape=shape,
            dtype=dtype,
            classes=classes,
            unit=unit,
            source=source,
        )
        for name, samples, eval_samples, shape, classes, source in rows
    }


def _key(name: str) -> str:
    return re.sub(r"[\s_./-]+", "", name).lower()


CATALOGUE: Mapping[str, DatasetSpec] = MappingProxyType(
    _specs(_IMAGES, "image", "uint8")
    | _specs(_TOKENS, "token", "int64")
    | _specs(_TEXTS, "text", "uint8")
    | _specs(_AUDIO, "clip", "int16")
    | _specs(_ROWS, "row", "float64")
)
_BY_KEY = {_key(name): spec for name, spec in CATALOGUE.items()}


def find(name: str) -> DatasetSpec:
    """The data set of that name; case, spaces, dashes, underscores and dots do not matter.

    Raises:
        UsageError: the catalogue has no such name; the message lists close ones.
    """
    spec = _BY_KEY.get(_key(name))
    if spec is None:
        raise UsageError(f"no data set named {name!r} in the catalogue; {_advice(name)}")
    return spec


def _advice(name: str) -> str:
    close = difflib.get_close_matches(_key(name), _BY_KEY, n=3)
    if not close:
        return "epochcast datasets lists all of them"
    return "did you mean " + " or ".join(_BY_KEY[key].name for key in close) + "?"
