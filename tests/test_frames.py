"""Data frames, series and lists: the same fit as from arrays, names kept and checked, metadata routed."""

import re
import warnings
from itertools import product

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.metrics import get_scorer
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skl_softmax import TorchSoftmaxClassifier, TorchSoftmaxClassifierCV

IRIS = load_iris()
NAMES = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
LABELS = IRIS.target_names[IRIS.target].tolist()
PANDAS = pd.DataFrame(IRIS.data, columns=NAMES)
FRAMES = {
    "pandas": PANDAS,
    "nullable": PANDAS.convert_dtypes(),
    "pyarrow-backed": PANDAS.convert_dtypes(dtype_backend="pyarrow"),
    "object": PANDAS.astype(object),
    "polars": pl.DataFrame(IRIS.data, schema=NAMES),
    "pyarrow": pa.table(dict(zip(NAMES, IRIS.data.T, strict=True))),
}
STRINGS = {
    "list": LABELS,
    "object": pd.Series(LABELS, dtype=object),
    "str": pd.Series(LABELS),
    "string": pd.Series(LABELS, dtype="string"),
    "pyarrow-backed": pd.Series(LABELS, dtype=pd.ArrowDtype(pa.string())),
    "category": pd.Series(LABELS, dtype="category"),
    "category, other order, one unused": pd.Series(
        pd.Categorical(LABELS, ["virginica", "none", "setosa", "versicolor"], ordered=True)
    ),
    "polars": pl.Series(LABELS),
    "polars categories": pl.Series(LABELS, dtype=pl.Categorical),
    "polars enum": pl.Series(LABELS, dtype=pl.Enum(["virginica", "versicolor", "setosa"])),
    "pyarrow": pa.array(LABELS),
}
NUMBERS = {
    "Int64": pd.Series(IRIS.target, dtype="Int64"),
    "UInt8": pd.Series(IRIS.target, dtype="UInt8"),
    "pyarrow-backed": pd.Series(IRIS.target, dtype=pd.ArrowDtype(pa.int64())),
    "category": pd.Series(IRIS.target, dtype="category"),
    "polars": pl.Series(IRIS.target),
}
WORDS = pd.Series(["a", "b"] * 75)
OTHERS = {
    "words": WORDS,
    "categories": WORDS.astype("category"),
    "dates": pd.Series(pd.Timestamp("2026-01-01"), index=range(150)),
    "lists": pd.Series([[1, 2]] * 150),
}
BOOLEANS = {
    "boolean": pd.Series(IRIS.target > 0, dtype="boolean"),
    "pyarrow-backed": pd.Series(IRIS.target > 0, dtype=pd.ArrowDtype(pa.bool_())),
    "polars": pl.Series(IRIS.target > 0),
}
ESTIMATORS = {
    "fit": TorchSoftmaxClassifier(),
    "cv": TorchSoftmaxClassifierCV(Cs=[0.1, 10], cv=3),
    "cv, scorer": TorchSoftmaxClassifierCV(Cs=[0.1, 10], cv=3, scoring="balanced_accuracy"),
    "alo": TorchSoftmaxClassifierCV(Cs=[0.1, 10], cv="alo"),
}


@pytest.fixture(params=ESTIMATORS)
def estimator(request):
    return clone(ESTIMATORS[request.param])


class TestRows:
    @pytest.mark.parametrize("kind", FRAMES)
    def test_same_as_array_with_names(self, estimator, kind):
        frame = FRAMES[kind]
        plain = clone(estimator).fit(IRIS.data, LABELS)
        estimator.fit(frame, LABELS)
        np.testing.assert_array_equal(estimator.coef_, plain.coef_)
        assert list(estimator.feature_names_in_) == NAMES
        np.testing.assert_array_equal(estimator.predict_proba(frame), plain.predict_proba(IRIS.data))
        assert estimator.score(frame, LABELS) == plain.score(IRIS.data, LABELS)

    @pytest.mark.parametrize("kind", FRAMES)
    def test_names_are_checked(self, kind):
        clf = TorchSoftmaxClassifier(solver="sgd").partial_fit(FRAMES["pandas"], LABELS, classes=sorted(set(LABELS)))
        frame = FRAMES[kind]
        swapped = frame.select(NAMES[::-1]) if hasattr(frame, "select") else frame[NAMES[::-1]]
        for method in (clf.predict, clf.predict_proba, clf.decision_function, lambda X: clf.partial_fit(X, LABELS)):
            method(frame)
            with pytest.raises(ValueError, match="same order as they were in fit"):
                method(swapped)
        with pytest.warns(UserWarning, match="does not have valid feature names"):
            clf.predict(IRIS.data)

    def test_lists(self, estimator):
        estimator.fit(IRIS.data.tolist(), LABELS)
        assert not hasattr(estimator, "feature_names_in_")
        assert estimator.predict(IRIS.data.tolist()[:2]).tolist() == ["setosa", "setosa"]

    def test_missing_values_are_refused(self, estimator):
        for kind in ("nullable", "pyarrow-backed"):
            frame = FRAMES[kind].copy()
            frame.iloc[3, 1] = pd.NA
            with pytest.raises(ValueError, match="X holds NaN"):
                estimator.fit(frame, LABELS)


class TestTargets:
    @pytest.mark.parametrize("kind", STRINGS)
    def test_strings(self, estimator, kind):
        plain = clone(estimator).fit(IRIS.data, np.array(LABELS))
        estimator.fit(IRIS.data, STRINGS[kind])
        assert estimator.classes_.tolist() == ["setosa", "versicolor", "virginica"]
        np.testing.assert_array_equal(estimator.coef_, plain.coef_)
        np.testing.assert_array_equal(estimator.predict(IRIS.data), plain.predict(IRIS.data))

    @pytest.mark.parametrize(("labels", "kind"), [*((NUMBERS, k) for k in NUMBERS), *((BOOLEANS, k) for k in BOOLEANS)])
    def test_numbers_and_bools_stay_such(self, estimator, labels, kind):
        plain = np.asarray(IRIS.target if labels is NUMBERS else IRIS.target > 0)
        estimator.fit(PANDAS, labels[kind])
        assert estimator.classes_.dtype.kind in ("iu" if labels is NUMBERS else "b")
        np.testing.assert_array_equal(estimator.classes_, np.unique(plain))
        np.testing.assert_array_equal(estimator.coef_, clone(estimator).fit(PANDAS, plain).coef_)
        assert estimator.predict(PANDAS).dtype == estimator.classes_.dtype

    @pytest.mark.parametrize("kind", ["object", "str", "string", "category", "pyarrow-backed"])
    def test_missing_labels_are_refused(self, estimator, kind):
        labels = STRINGS[kind].copy()
        labels.iloc[[4, 7]] = pd.NA
        with pytest.raises(ValueError, match=r"y holds no label in row 4 \(2 in all\)"):
            estimator.fit(PANDAS, labels)

    def test_missing_labels_of_polars_and_numbers(self, estimator):
        with pytest.raises(ValueError, match=r"y holds no label in row 0 \(1 in all\)"):
            estimator.fit(PANDAS, pl.Series([None, *LABELS[1:]]))
        with pytest.raises(ValueError, match=r"y holds no label in row 0 \(1 in all\)"):
            estimator.fit(PANDAS, pd.Series([pd.NA, *IRIS.target[1:]], dtype="Int64"))

    def test_masked_labels_are_missing(self, estimator):
        mask = np.isin(np.arange(150), [3, 8])
        for labels in (np.ma.array(IRIS.target, mask=mask), np.ma.array(LABELS, mask=mask)):
            with pytest.raises(ValueError, match=r"y holds no label in row 3 \(2 in all\)"):
                estimator.fit(PANDAS, labels)
        estimator.fit(PANDAS, np.ma.array(IRIS.target, mask=False))

    @pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
    def test_probabilities(self, frame):
        proba = np.eye(3)[IRIS.target] * 0.7 + 0.1
        clf = TorchSoftmaxClassifier().fit(PANDAS, frame(proba), classes=IRIS.target_names)
        np.testing.assert_array_equal(clf.coef_, TorchSoftmaxClassifier().fit(IRIS.data, proba).coef_)
        assert clf.predict(PANDAS)[0] == "setosa"


class TestWeights:
    @pytest.mark.parametrize(
        "dtype", ["int64", "float32", "Int64", "Float64", "Float32", "int64[pyarrow]", "double[pyarrow]"]
    )
    @pytest.mark.parametrize("lightest", [0, 1])
    def test_series(self, estimator, dtype, lightest):
        weights = np.arange(150) % 4 + lightest
        series = pd.Series(weights, dtype=dtype)
        plain = clone(estimator).fit(PANDAS, LABELS, weights)
        np.testing.assert_array_equal(estimator.fit(PANDAS, LABELS, series).coef_, plain.coef_)
        assert (series == weights).all()

    def test_polars(self, estimator):
        weights = np.arange(150) % 4
        plain = clone(estimator).fit(PANDAS, LABELS, weights)
        np.testing.assert_array_equal(estimator.fit(PANDAS, LABELS, pl.Series(weights)).coef_, plain.coef_)


class TestMetadataRouting:
    @pytest.fixture(autouse=True)
    def routing(self):
        with sklearn.config_context(enable_metadata_routing=True):
            yield

    @pytest.mark.parametrize("kind", ["fit", "cv"])
    def test_weights_reach_the_fit_in_a_pipeline(self, kind):
        weights = pd.Series(np.arange(150) % 4)
        estimator = clone(ESTIMATORS[kind])
        if kind == "cv":
            estimator.scoring = get_scorer("neg_log_loss").set_score_request(sample_weight=False)
        asks, ignores = clone(estimator), clone(estimator).set_fit_request(sample_weight=False)
        asks.set_fit_request(sample_weight=True)
        found, without = (
            make_pipeline(StandardScaler().set_fit_request(sample_weight=False), model).fit(
                PANDAS, LABELS, **({"sample_weight": weights} if model is asks else {})
            )
            for model in (asks, ignores)
        )
        scaled = StandardScaler().fit_transform(PANDAS)
        np.testing.assert_array_equal(found[-1].coef_, clone(estimator).fit(scaled, LABELS, weights).coef_)
        np.testing.assert_array_equal(without[-1].coef_, clone(estimator).fit(scaled, LABELS).coef_)

    def test_cross_validate_routes_weights_to_fit_and_score(self):
        clf = TorchSoftmaxClassifier().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        weights = (np.arange(150) % 4).astype(float)
        found = cross_validate(clf, PANDAS, LABELS, cv=3, params={"sample_weight": weights}, return_estimator=True)
        splits = cross_validate(clf, PANDAS, LABELS, cv=3, params={"sample_weight": weights}, return_indices=True)
        train, test = splits["indices"]["train"][0], splits["indices"]["test"][0]
        labels = np.array(LABELS)
        alone = TorchSoftmaxClassifier().fit(PANDAS.iloc[train], labels[train], weights[train])
        np.testing.assert_array_equal(found["estimator"][0].coef_, alone.coef_)
        assert found["test_score"][0] == alone.score(PANDAS.iloc[test], labels[test], weights[test])

    def test_unset_requests_are_refused(self):
        pipeline = make_pipeline(TorchSoftmaxClassifier())
        with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
            pipeline.fit(PANDAS, LABELS, sample_weight=np.ones(150))

    def test_partial_fit_has_a_request_of_its_own(self):
        clf = TorchSoftmaxClassifier(solver="sgd").set_partial_fit_request(sample_weight=True, classes=True)
        assert clf.get_metadata_routing().partial_fit.requests == {"sample_weight": True, "classes": True}


@pytest.mark.parametrize("output", ["pandas", "polars"])
def test_set_output_in_a_pipeline(output):
    """The classifier sees the names that the transformers give out."""
    frame = PANDAS.assign(garden=pd.Series(["a", "b", "c"] * 50, dtype="category"))
    columns = make_column_transformer(
        (StandardScaler(), NAMES), (OneHotEncoder(sparse_output=False), ["garden"]), verbose_feature_names_out=False
    )
    pipeline = make_pipeline(columns, TorchSoftmaxClassifier()).set_output(transform=output).fit(frame, LABELS)
    assert list(pipeline[-1].feature_names_in_) == [*NAMES, "garden_a", "garden_b", "garden_c"]
    plain = make_pipeline(clone(columns), TorchSoftmaxClassifier()).fit(frame, LABELS)
    np.testing.assert_allclose(pipeline.predict_proba(frame), plain.predict_proba(frame), rtol=1e-12)


@pytest.mark.parametrize("kind", ["fit", "cv"])
class TestHTML:
    def test_every_parameter_has_its_description_and_a_link(self, kind):
        estimator = clone(ESTIMATORS[kind])
        html = estimator._repr_html_()
        page = f"https://skl-softmax.readthedocs.io/en/stable/api/skl_softmax.{type(estimator).__name__}.html"
        assert f'href="{page}"' in html
        for name, value in estimator.get_params().items():
            assert f'href="{page}#:~:text={name},-' in html
            row = re.search(rf'<tr class="([\w-]+)">(?:(?!</tr>).)*--doc-link-{name};', html, flags=re.DOTALL)
            is_default = repr(value) == repr(type(estimator)().get_params()[name])
            assert row.group(1) == ("default" if is_default else "user-set")

    def test_in_a_fitted_pipeline(self, kind):
        pipeline = make_pipeline(StandardScaler(), clone(ESTIMATORS[kind])).fit(PANDAS, LABELS)
        html = pipeline._repr_html_()
        assert f"skl_softmax.{type(pipeline[-1]).__name__}.html" in html
        assert "coef_" in html


@pytest.mark.parametrize(
    ("kind", "convert"),
    [
        *product(OTHERS, [lambda frame: frame]),
        *product(["words", "categories", "lists"], [pl.from_pandas, pa.Table.from_pandas]),  # dates become numbers
    ],
)
def test_columns_that_hold_no_numbers_are_named(kind, convert):
    frame = convert(PANDAS.assign(city=OTHERS[kind], street=OTHERS[kind]))
    for estimator in (TorchSoftmaxClassifier(), TorchSoftmaxClassifierCV()):
        with pytest.raises(ValueError, match=r"columns that hold no numbers: \['city', 'street'\] .*OneHotEncoder"):
            estimator.fit(frame, IRIS.target)
        assert not hasattr(estimator, "n_features_in_")
    fitted = TorchSoftmaxClassifier().fit(PANDAS.assign(city=0.0, street=1.0), IRIS.target)
    with pytest.raises(ValueError, match=r"columns that hold no numbers: \['city', 'street'\]"):
        fitted.predict(frame)
    with pytest.raises(ValueError, match=r"feature names should match those that were passed during fit"):
        TorchSoftmaxClassifier().fit(PANDAS, IRIS.target).predict(frame)


@pytest.mark.parametrize("kind", ["dates", "spans", "with a zone"])
@pytest.mark.parametrize("convert", [lambda frame: frame, pl.from_pandas, pa.Table.from_pandas, np.asarray])
def test_dates_alone_are_no_numbers_either(kind, convert):
    """scikit-learn makes nanoseconds of them, and -9.2e18 of those that are missing."""
    dates = pd.Series(pd.to_datetime(["2020-01-01", None, "2020-03-01", "2020-04-01"]))
    if kind == "with a zone" and convert is np.asarray:
        pytest.skip("an array of objects, which is no number in NumPy either")
    times = {"dates": dates, "spans": dates - dates.min(), "with a zone": dates.dt.tz_localize("UTC")}[kind]
    X = convert(pd.DataFrame({"a": times, "b": times}))
    for estimator in (TorchSoftmaxClassifier(), TorchSoftmaxClassifierCV(cv=2)):
        with pytest.raises((TypeError, ValueError), match="dates are no numbers, but days between them"):
            estimator.fit(X, [0, 1, 0, 1])
    fitted = TorchSoftmaxClassifier().fit(pd.DataFrame({"a": [1.0, 2, 3, 4], "b": 0.0}), [0, 1, 0, 1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        with pytest.raises((TypeError, ValueError), match="dates are no numbers, but days between them"):
            fitted.predict(X)


def test_lazy_frames_are_to_be_collected():
    frame = pl.from_pandas(PANDAS)
    with pytest.raises(TypeError, match=r"X is a LazyFrame, which has no rows yet: pass X\.collect\(\)"):
        TorchSoftmaxClassifier().fit(frame.lazy(), IRIS.target)
    with pytest.raises(TypeError, match=r"pass X\.collect\(\)"):
        TorchSoftmaxClassifier().fit(frame, IRIS.target).predict(frame.lazy())


def test_columns_without_names_are_counted():
    frame = pd.DataFrame({0: WORDS, 1: 1.0})
    with pytest.raises(ValueError, match=r"columns that hold no numbers: \[0\] "):
        TorchSoftmaxClassifier().fit(frame, IRIS.target)
