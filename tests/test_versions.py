"""Stored models of earlier versions, and what a bug report says."""

import ast
import pickle
from pathlib import Path

import numpy as np
import pytest
import skops.io
import torch
from sklearn.datasets import load_iris

import skl_softmax

DATA = Path(__file__).parent / "data"
VERSIONS = sorted(path.stem.removeprefix("models-") for path in DATA.glob("models-*.npz"))


def test_this_version_is_stored():
    assert skl_softmax.__version__ in VERSIONS, "run python tests/data/make_models.py before a release"


@pytest.fixture(params=VERSIONS)
def stored(request):
    """Path of a version's models without its ending, and the probabilities they gave."""
    stem = str(DATA / f"models-{request.param}")
    with np.load(stem + ".npz") as proba:
        return stem, dict(proba)


# Of scikit-learn's base class, where models come from another version of it than is installed.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.InconsistentVersionWarning")
@pytest.mark.parametrize("ending", [".pickle", ".skops"])
def test_models_load_and_predict_what_they_did(stored, ending):
    stem, expected = stored
    path, X = Path(stem + ending), load_iris().data
    if ending == ".pickle":
        models = pickle.loads(path.read_bytes())
    else:
        models = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
    assert models.keys() == expected.keys()
    for name, model in models.items():
        np.testing.assert_allclose(model.predict_proba(X), expected[name], rtol=1e-6)
    models["stream"].partial_fit(X, load_iris().target)  # goes on


def test_skops_files_ask_for_no_trust_beyond_the_package(stored):
    unknown = skops.io.get_untrusted_types(file=stored[0] + ".skops")
    unknown.remove("scipy.sparse._csr.csr_array")  # coefficients after sparsify; densify makes them arrays
    assert unknown
    assert all(name.startswith("skl_softmax.") for name in unknown)


def test_nothing_is_unpickled_by_the_package():
    for path in Path(skl_softmax.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in {"torch.load", "pickle.load", "pickle.loads", "joblib.load"}, path
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "joblib", "marshal", "shelve"}, path


def test_show_versions(capsys):
    skl_softmax.show_versions()
    said = capsys.readouterr().out
    torch_version = torch.__version__.split("+")[0]  # a wheel's metadata may not name its build
    for expected in (skl_softmax.__version__, torch_version, np.__version__, "sklearn", "python", "num_threads"):
        assert expected in said
