"""Problems that many tests share."""

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_iris, load_wine, make_classification


@pytest.fixture(params=[2, 3, 5], ids="{}-classes".format)
def problem(request):
    """A small noisy problem: X of mixed scales and offsets, string labels, uneven weights."""
    n_classes = request.param
    rng = np.random.default_rng(n_classes)
    X = rng.normal(size=(120, 6)) * np.logspace(-2, 2, 6) + np.linspace(-3, 30, 6)
    logits = ((X - X.mean(axis=0)) / X.std(axis=0)) @ rng.normal(size=(6, n_classes))
    y = np.array(["class " + "abcde"[k] for k in (logits + 2 * rng.gumbel(size=logits.shape)).argmax(axis=1)])
    sample_weight = rng.uniform(0.1, 3, size=len(X))
    return X, y, sample_weight


RAW = {"iris": load_iris, "wine": load_wine, "breast_cancer": load_breast_cancer}


@pytest.fixture(params=RAW)
def raw_data(request):
    """Small real data, features as they come."""
    return RAW[request.param](return_X_y=True)


@pytest.fixture
def tall_table():
    """200,000 rows, 50 features whose scales span 1e5 and whose offsets reach 1e5 times their spread."""
    X, y = make_classification(
        200_000, 50, n_informative=25, n_redundant=12, n_classes=5, n_clusters_per_class=1, random_state=0
    )
    rng = np.random.RandomState(1)
    factors, shifts = 10 ** rng.uniform(-2, 3, 50), 10 ** rng.uniform(-1, 3, 50)
    return X * factors + shifts, y


@pytest.fixture
def many_classes():
    """4,000 rows around 40 centres, 60 features of different spread."""
    rng = np.random.default_rng(0)
    y = rng.integers(40, size=4000)
    centres, noise = 0.5 * rng.normal(size=(40, 60)), rng.normal(size=(4000, 60)) * np.geomspace(2, 0.1, 60)
    return centres[y] + noise, y


@pytest.fixture
def sparse_as_it_is(monkeypatch):
    """Sparse X is solved as such, also where it is small or full, so that small tables tell of large ones."""
    monkeypatch.setattr("skl_softmax.training.without_sparsity", lambda X: X)


@pytest.fixture
def calls_of(monkeypatch):
    """``calls_of(owner, name)`` is a list that grows by the arguments of each call of that function from then on."""

    def watch(owner, name):
        calls, function = [], getattr(owner, name)

        def watched(*args, **known):
            calls.append(args)
            return function(*args, **known)

        monkeypatch.setattr(owner, name, watched)
        return calls

    return watch


@pytest.fixture
def data_dir():
    """The folder of covtype_10k.csv.gz and letter.csv.gz, where there is one."""
    folder = Path(os.environ.get("SKL_SOFTMAX_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no folder of local data: set SKL_SOFTMAX_DATA")
    return folder
