"""Imports go one way, and what is public is documented."""

import ast
import inspect
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import skl_softmax
import skl_softmax.displays
from skl_softmax import TorchSoftmaxClassifier, TorchSoftmaxClassifierCV
from skl_softmax.dask import DaskTorchSoftmaxClassifier

PACKAGE = Path(skl_softmax.__file__).parent
# Folders whose files are rooms of their own.
OPEN = {"objective"}
# What each room may import of ours.
ALLOWED = {
    "__init__": {"_version", "classifier", "classifier_cv", "data", "forks", "versions"},
    "versions": {"_version"},
    "_version": set(),
    "classifier_cv": {
        "classifier",
        "data",
        "export",
        "folds",
        "inputs",
        "leave_one_out",
        "predictor",
        "routing",
        "scores",
        "solver_parameters",
        "solvers",
        "state",
        "sweep",
        "targets",
        "training",
        "watch",
    },
    "folds": set(),
    "sweep": {"data", "inputs", "memory", "objective", "objective.absent", "solver_parameters", "solvers", "training"},
    "scores": {"data", "inputs", "objective.losses", "routing"},
    "routing": {"inputs"},
    "leave_one_out": {
        "data",
        "inputs",
        "objective",
        "objective.costs",
        "objective.curvature",
        "scores",
        "solver_parameters",
        "sweep",
        "training",
    },
    "displays": {"displays", "inputs", "solver_parameters"},
    "export": {"data", "inputs", "targets"},
    "onnx": {"classifier", "classifier_cv", "training"},
    "inference": {"data", "inputs", "objective.curvature", "solver_parameters", "training"},
    "classifier": {
        "blocks",
        "data",
        "export",
        "inference",
        "inputs",
        "predictor",
        "solver_parameters",
        "solvers",
        "start",
        "state",
        "stream",
        "training",
        "watch",
    },
    "dask": {
        "_version",
        "classifier",
        "cluster",
        "data",
        "inputs",
        "parts",
        "solver_parameters",
        "start",
        "state",
        "targets",
        "training",
        "watch",
    },
    "cluster": {"data", "inputs", "parts", "pieces"},
    "blocks": {"data", "inputs", "parts", "pieces", "solver_parameters", "targets"},
    "parts": {
        "data",
        "inputs",
        "objective",
        "objective.costs",
        "objective.curvature",
        "objective.losses",
        "objective.metrics",
        "pieces",
        "solver_parameters",
        "solvers",
        "training",
    },
    "pieces": {"data", "inputs", "objective.costs", "objective.sampling", "targets"},
    "predictor": {"_version", "data", "finite", "inputs", "objective.losses", "targets"},
    "training": {
        "data",
        "inputs",
        "objective",
        "objective.absent",
        "objective.batches",
        "objective.costs",
        "objective.small",
        "objective.tiny",
        "solver_parameters",
        "solvers",
        "stream",
    },
    "stream": {"data", "inputs", "solver_parameters", "solvers"},
    "solver_parameters": {"solvers"},
    "objective.batches": {"objective.base", "objective.costs", "objective.curvature", "objective.small"},
    "watch": {"inputs", "scores", "solvers", "training"},
    "start": {"inputs", "solver_parameters"},
    "inputs": {"data", "finite", "targets"},
    "state": {"data", "memory"},
    "targets": set(),
    "finite": {"data", "threads"},
    "memory": set(),
    "forks": set(),
    "objective.base": {
        "data",
        "objective.absent",
        "objective.anchor",
        "objective.costs",
        "objective.curvature",
        "objective.duality",
        "objective.losses",
        "objective.metrics",
        "objective.outliers",
        "objective.portions",
        "objective.quadratic",
        "objective.sampling",
        "objective.separability",
        "objective.stretches",
    },
    "objective": {"objective.base"},
    "objective.sampling": {"data"},
    "objective.separability": set(),
    "objective.outliers": {"objective.curvature"},
    "objective.small": {"data", "objective.base", "objective.losses", "threads"},
    "objective.tiny": {"data", "objective.curvature", "objective.quadratic", "objective.small", "threads"},
    "objective.duality": {"objective.curvature", "objective.losses"},
    "objective.quadratic": {"objective.costs", "objective.curvature"},
    "objective.absent": {"data"},
    "objective.metrics": {"objective.absent", "objective.costs", "objective.curvature", "products"},
    "objective.curvature": {"data", "objective.costs", "objective.stretches", "products", "threads"},
    "objective.portions": {"data", "objective.stretches"},
    "objective.stretches": {"data"},
    "objective.costs": set(),
    "objective.anchor": set(),
    "objective.losses": {"threads"},
    "data": {"data", "products", "threads"},
    "products": set(),
    "threads": set(),
    "solvers": {"solvers"},
}
# What the documentation of scikit-learn has estimators import.
IN_EVERY_ESTIMATOR = {
    "sklearn.base._fit_context",
    "sklearn.utils._param_validation.Interval",
    "sklearn.utils._param_validation.StrOptions",
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} line {node.lineno}: write imports in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if is_room(name) else node.module for name in names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def is_room(name):
    path = PACKAGE.parent.joinpath(*name.split("."))
    return name.startswith("skl_softmax.") and (path.is_dir() or path.with_suffix(".py").is_file())


def room(path):
    return room_of(path.relative_to(PACKAGE).with_suffix("").parts)


def room_of(parts):
    """The name of the room of a file or import, given by its parts below the package."""
    inside = [part for part in parts if part != "__init__"] or ["__init__"]
    return ".".join(inside[:2]) if inside[0] in OPEN else inside[0]


@pytest.mark.parametrize("name", sorted(ALLOWED.keys() | {room(path) for path in PACKAGE.rglob("*.py")}))
def test_imports_are_those_that_are_allowed(name):
    files = (path for path in PACKAGE.rglob("*.py") if room(path) == name)
    ours = {room_of(line.split(".")[1:]) for path in files for line in imports(path) if line.startswith("skl_softmax.")}
    assert ours == ALLOWED[name]


def test_imports_go_in_no_circle():
    TopologicalSorter({name: allowed - {name} for name, allowed in ALLOWED.items()}).prepare()


def test_every_room_is_on_the_map():
    table = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    rooms = {room(path) for path in PACKAGE.rglob("*.py")} - {"__init__", "_version"}
    names = {name: name.replace(".", "/") for name in rooms}
    missing = [n for n in names.values() if f"skl_softmax/{n}.py`" not in table and f"skl_softmax/{n}/`" not in table]
    assert not missing


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_private_helpers_of_scikit_learn_are_used_in_two_rooms_only(path):
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    names = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
    private = {name for name in names if name.startswith("sklearn") and "._" in name}
    assert room(path) in {"inputs", "routing"} or private <= IN_EVERY_ESTIMATOR


def test_only_data_and_inputs_ask_whether_rows_are_sparse():
    for path in PACKAGE.rglob("*.py"):
        if room(path) not in {"data", "inputs"}:
            assert not {"issparse", "isspmatrix", "is_sparse"} & set(re.findall(r"\w+", path.read_text()))


def test_public_names_are_documented():
    displays = [getattr(skl_softmax.displays, name) for name in skl_softmax.displays.__all__]
    for public in (*(getattr(skl_softmax, name) for name in skl_softmax.__all__), *displays):
        if inspect.isclass(public):
            methods = [m for n, m in inspect.getmembers(public, inspect.isroutine) if not n.startswith("_")]
            assert all(inspect.unwrap(item).__doc__ for item in (public, *methods))  # of its own, not inherited


@pytest.mark.parametrize("estimator", [TorchSoftmaxClassifier, TorchSoftmaxClassifierCV, DaskTorchSoftmaxClassifier])
def test_the_parameters_that_there_are_are_documented(estimator):
    section = re.search(r"\nParameters\n-+\n(.*?)\n\w+\n---", inspect.getdoc(estimator), re.DOTALL)[1]
    entries = re.findall(r"^(\w.*?)(?: : .*)?$", section, re.MULTILINE)
    assert {name for entry in entries for name in entry.split(", ")} == set(inspect.signature(estimator).parameters)


def test_import_brings_no_optional_package():
    names = (
        "matplotlib", "polars", "statsmodels", "skorch", "dask", "distributed", "skl2onnx", "onnx", "skops"
    )  # fmt: skip
    code = f"import sys, skl_softmax.displays; print([m for m in {names} if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
