"""Honesty of ``optimality_gap_`` and ``converged_``: of small hostile problems, and of tables of usual sizes."""

import warnings
from dataclasses import replace
from itertools import count, islice

import numpy as np
import scipy.sparse as sp
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.linear_model import LogisticRegression

from benchmarks.tables import categories, codes, draw, outliers
from skl_softmax import TorchSoftmaxClassifier
from tests import fuzz
from tests.reference import objective

SOLVERS, TOLERANCES = ("newton", "lbfgs", "proximal"), (1e-3, 1e-5, 1e-7, 1e-9)
# The same of larger tables, by the default solver and by one that is another way.
TABLE_SOLVERS, TABLE_TOLERANCES = ("auto", "newton"), (1e-2, 1e-4, 1e-7, 1e-10)
# Of those of one kind, by both.
OTHER_SOLVERS = "newton", "lbfgs"
# Of each fit, also where the last digits of a hostile problem would take many; of those of larger tables.
MAX_ITER, TABLE_MAX_ITER = 100, 1000
# Rounding errors of F in units of eps |F|.
ROUNDINGS = 100


def problems(n_problems):
    """Small problems with an L2 penalty: three of scikit-learn's tables at several C, then hostile ones."""
    for load in (load_iris, load_wine, load_breast_cancer):
        X, y = load(return_X_y=True)
        for C in (1e-4, 1e-2, 1.0, 1e2, 1e4):
            yield X, np.eye(y.max() + 1)[y], np.ones(len(y)), {"C": C, "l1_ratio": 0.0, "fit_intercept": True}
    drawn = map(hostile, count())
    yield from islice((problem for problem in drawn if problem is not None), max(n_problems - 15, 0))


def hostile(seed):
    """A problem of `tests.fuzz` with an L2 penalty; None if its case is of another kind."""
    case = fuzz.draw(seed)
    if case.storage == "float32" or case.has_one_class or np.isinf(case.C):
        return None
    X, targets, weights, _ = fuzz.problem(replace(case, repeats=False, l1_ratio=0.0))
    proba = targets if targets.ndim == 2 else np.eye(targets.max() + 1)[targets]
    return X, proba, weights, case.parameters | {"l1_ratio": 0.0}


def fits_of(X, proba, weights, parameters, tolerances, solvers, max_iter):
    """Fits by all solvers: tolerance, solver, F, what rounding it may hide, the gap that was told, ``converged_``."""
    dense = X.toarray() if sp.issparse(X) else X
    found = []
    for solver in solvers:
        for tol in tolerances:
            settings = {"solver": solver, "tol": tol, "max_iter": max_iter} | parameters
            model = TorchSoftmaxClassifier(**settings).fit(X, proba, weights)
            value = objective(model, dense, proba, sample_weight=weights, **parameters)
            hidden = hidden_by_rounding(model, value, dense, weights)
            found.append((tol, solver, value, hidden, model.optimality_gap_, model.converged_))
    return found


def lowest(X, proba, weights, parameters):
    """The minimum of F, by scikit-learn's newton-cholesky and by our newton at tolerances that rounding ends.

    With what rounding may hide: logits of columns that are equal to rounding and have no penalty to speak of, as those
    of size 1e128, are differences of numbers without end, and what F is there nobody knows.
    """
    dense = X.toarray() if sp.issparse(X) else X
    rows, labels = np.nonzero(proba * weights[:, None])
    values = []
    for model, data in (
        (TorchSoftmaxClassifier(solver="newton", tol=1e-13, **parameters), (X, proba, weights)),
        (
            LogisticRegression(solver="newton-cholesky", tol=1e-12, max_iter=1000, **parameters),
            (dense[rows], labels, weights[rows] * proba[rows, labels]),
        ),
    ):
        model.fit(*data)
        if len(model.classes_) == proba.shape[1]:
            value = objective(model, dense, proba, sample_weight=weights, **parameters)
            values.append(value + hidden_by_rounding(model, value, dense, weights))
    return min(values)


def hidden_by_rounding(model, value, X, weights):
    """By how much F may differ from the value that is computed."""
    return ROUNDINGS * np.finfo(float).eps * abs(value) + fuzz.rounding(model, X, weights)


def measure(n_problems=400, tolerances=TOLERANCES):
    """For each fit: tolerance, solver, relative gaps, true and told, rounding, ``converged_``."""
    return [fit for problem in problems(n_problems) for fit in judged(problem, tolerances)]


def judged(problem, tolerances=TOLERANCES, solvers=SOLVERS, lowest=lowest, max_iter=MAX_ITER):
    """Those figures for the fits of one problem."""
    results = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        fits = fits_of(*problem, tolerances, solvers, max_iter)
        best = min([lowest(*problem), *(value + hidden for _, _, value, hidden, *_ in fits)])
    for tol, solver, value, hidden, gap, converged in fits:
        size = abs(value)
        figures = {"true": (value - best) / size, "told": gap / size, "rounding": hidden / size}
        results.append({"solver": solver, "tol": tol, "converged": converged, **figures})
    return results


def too_small(fit, factor=10):
    """Whether the true gap is more than that many times the one that was told, beyond rounding."""
    return fit["true"] > factor * fit["told"] + fit["rounding"]


def claims_too_much(fit, factor=10):
    """Whether a fit is said to have converged further from the minimum than that many times its tolerance."""
    return fit["converged"] and fit["true"] > factor * fit["tol"] + fit["rounding"]


def report(results):
    """The table of how gaps and claims turned out."""
    yield "## Honesty of `optimality_gap_` and `converged_`\n"
    yield (
        f"{len(results) // (len(SOLVERS) * len(TOLERANCES))} problems with an L2 penalty (iris, wine and breast_cancer "
        "raw at five C each, the rest drawn by `tests/fuzz.py`: dense and sparse float64, C from 1e-8 to 1e10), three "
        f"solvers, four tolerances, at most {MAX_ITER} iterations. The true gap is F, in float64 NumPy, above the "
        "lowest of all fits and of scikit-learn's newton-cholesky (tol=1e-12) and our newton (tol=1e-13), each with "
        "what rounding may hide in it. That is not held against a fit either: "
        f"{ROUNDINGS} eps |F| and what rounding each coefficient to float64 can change in F. Quantiles of true gap "
        "over told gap are of the fits whose true gap is above rounding.\n"
    )
    yield from quantiles_of(results, SOLVERS, TOLERANCES)


def quantiles_of(results, solvers, tolerances):
    """The lines of such a table."""
    yield "| solver | tol | fits | converged | true/told: median | 90 % | 99 % | largest | > 10 | claims > 10 tol |"
    yield "|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for solver in solvers:
        for tol in tolerances:
            fits = [fit for fit in results if (fit["solver"], fit["tol"]) == (solver, tol)]
            seen = [fit["true"] / max(fit["told"], 1e-300) for fit in fits if fit["true"] > fit["rounding"]]
            quantiles = " | ".join(f"{q:.2g}" for q in np.quantile(seen or [0.0], [0.5, 0.9, 0.99, 1.0]))
            counts = f"{sum(map(too_small, fits))} | {sum(map(claims_too_much, fits))}"
            converged = sum(fit["converged"] for fit in fits)
            yield f"| {solver} | {tol:g} | {len(fits)} | {converged} | {quantiles} | {counts} |"


def measure_tables(n_tables=160):
    """As `measure`, with the kind of each table."""
    drawn = map(draw, range(n_tables))
    return [fit | {"kind": table.kind} for table in drawn for fit in judged_table(table)]


def measure_categories(n_tables=30):
    """As `measure`, of tables of categories."""
    return [fit for table in map(categories, range(n_tables)) for fit in judged_table(table, solvers=OTHER_SOLVERS)]


def measure_codes(n_tables=60):
    """As `measure`, of tables in which some values are codes."""
    return [fit for table in map(codes, range(n_tables)) for fit in judged_table(table, solvers=OTHER_SOLVERS)]


def measure_outliers(n_tables=24):
    """As `measure`, of tables in which single numbers are far out."""
    return [fit for table in map(outliers, range(n_tables)) for fit in judged_table(table, solvers=OTHER_SOLVERS)]


def judged_table(table, tolerances=TABLE_TOLERANCES, solvers=TABLE_SOLVERS):
    """The figures of the fits of one of them."""
    targets = np.eye(table.y.max() + 1)[table.y]
    problem = table.X, targets, np.ones(len(table.y)), {"C": table.C, "l1_ratio": 0.0, "fit_intercept": True}
    return judged(problem, tolerances, solvers, lowest_of_table, TABLE_MAX_ITER)


def lowest_of_table(X, proba, weights, parameters):
    """The lowest F of our newton and lbfgs at tight tolerances and of scikit-learn's lbfgs, with its rounding."""
    dense, y = X.toarray() if sp.issparse(X) else X, proba.argmax(axis=1)
    models = (
        TorchSoftmaxClassifier(solver="newton", tol=1e-12, max_iter=TABLE_MAX_ITER, **parameters),
        TorchSoftmaxClassifier(solver="lbfgs", tol=1e-12, max_iter=TABLE_MAX_ITER, **parameters),
        LogisticRegression(tol=1e-8, max_iter=TABLE_MAX_ITER, **parameters),
    )
    found = [objective(model.fit(X, y), dense, proba, sample_weight=weights, **parameters) for model in models]
    hidden = [hidden_by_rounding(model, value, dense, weights) for model, value in zip(models, found, strict=True)]
    return min(map(sum, zip(found, hidden, strict=True)))


def report_tables(results):
    """The table of how these turned out."""
    yield "## Honesty on medium and wide tables\n"
    yield (
        f"{len(results) // (len(TABLE_SOLVERS) * len(TABLE_TOLERANCES))} tables drawn by `benchmarks/tables.py`: 30 to "
        "5,000 rows, 30 to 4,000 columns, 2 to 60 classes; normal, correlated, raw, with each row twice, float32, "
        "expression, counts, one-hot; C from 1e-2 to 1e5 for rows of length one. Fits end after "
        f"{TABLE_MAX_ITER:,} iterations. As above, but that the lowest F is that of all fits, of our newton and lbfgs "
        "at tol=1e-12 and of scikit-learn's lbfgs at tol=1e-8.\n"
    )
    yield from quantiles_of(results, TABLE_SOLVERS, TABLE_TOLERANCES)


def report_categories(results):
    """The table of how those of categories turned out."""
    yield "## Honesty on tables of categories\n"
    yield (
        f"{len(results) // (len(OTHER_SOLVERS) * len(TABLE_TOLERANCES))} tables drawn by `benchmarks/tables.py`: "
        "10,000 rows of some 1,300 users, two more categories and three numbers, sparse and one-hot, 3 classes, C from "
        "1 to 100. As above.\n"
    )
    yield from quantiles_of(results, OTHER_SOLVERS, TABLE_TOLERANCES)


def report_codes(results):
    """The table of how those with codes for missing values turned out."""
    yield "## Honesty on tables with codes for missing values\n"
    yield (
        f"{len(results) // (len(OTHER_SOLVERS) * len(TABLE_TOLERANCES))} tables drawn by `benchmarks/tables.py`: 2,000 "
        "rows of 2 to 20 columns, in which one to three values are 1e4 to 1e9 and the others normal, 2 to 6 classes, C "
        "of 1, 1e4 and infinity. As above.\n"
    )
    yield from quantiles_of(results, OTHER_SOLVERS, TABLE_TOLERANCES)


def report_outliers(results):
    """The table of how those with numbers far out turned out."""
    yield "## Honesty on tables with single numbers far out\n"
    yield (
        f"{len(results) // (len(OTHER_SOLVERS) * len(TABLE_TOLERANCES))} tables drawn by `benchmarks/tables.py`: 500 "
        "to 3,000 rows of 60 to 1,000 correlated columns, dense and sparse by turns, in which one or three numbers are "
        "1e2 to 1e6, 2 to 40 classes, C from 0.1 to 1e5. As above.\n"
    )
    yield from quantiles_of(results, OTHER_SOLVERS, TABLE_TOLERANCES)
