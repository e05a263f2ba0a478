"""Scores against scikit-learn's metrics."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from skl_softmax import scores
from skl_softmax.inputs import TrainingRows

N_ROWS, N_COLUMNS = 60, 3


def draw(n_outputs):
    """Rows, class indices as the losses take them, and two models for each of two folds."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(N_ROWS, N_COLUMNS, generator=generator, dtype=torch.float64)
    labels = torch.randint(max(2, n_outputs), (N_ROWS,), generator=generator)
    weight = torch.randn(2, 2, n_outputs, N_COLUMNS, generator=generator, dtype=torch.float64)
    bias = torch.randn(2, 2, n_outputs, generator=generator, dtype=torch.float64)
    return X, labels, torch.rand(N_ROWS, generator=generator, dtype=torch.float64), weight, bias


def proba_of(X, weight, bias):
    logits = X @ weight.T + bias
    if weight.shape[0] == 1:
        return torch.cat([1 - logits.sigmoid(), logits.sigmoid()], dim=1).numpy()
    return logits.softmax(dim=1).numpy()


MEASURES = [
    (scores.negative_log_loss, lambda y, proba, s: -log_loss(y, proba, sample_weight=s)),
    (scores.accuracy, lambda y, proba, s: accuracy_score(y, proba.argmax(axis=1), sample_weight=s)),
]


@pytest.mark.parametrize("n_outputs", [1, 4])
@pytest.mark.parametrize(("measure", "metric"), MEASURES)
def test_of_a_model_as_the_metric(measure, metric, n_outputs):
    X, labels, weights, weight, bias = draw(n_outputs)
    targets = labels.double() if n_outputs == 1 else labels
    rows = TrainingRows(X=X, targets=targets, weights=weights, classes=np.arange(max(2, n_outputs)))
    expected = metric(labels.numpy(), proba_of(X, weight[0, 0], bias[0, 0]), weights.numpy())
    assert scores.mean_score(rows, weight[0, 0], bias[0, 0], measure) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_outputs", [1, 4])
@pytest.mark.parametrize(("measure", "metric"), MEASURES)
@pytest.mark.parametrize("entries", [1, scores.SCORE_ENTRIES])
def test_of_held_out_rows_as_the_metric_however_many_are_made_at_a_time(
    measure, metric, n_outputs, entries, monkeypatch
):
    monkeypatch.setattr(scores, "SCORE_ENTRIES", entries)
    X, labels, weights, weight, bias = draw(n_outputs)
    tests = [np.arange(20), np.arange(15, N_ROWS)]
    found = scores.held_out_scores(X, (weight, bias), labels, weights, tests, measure)
    for fold, test in enumerate(tests):
        for j in range(2):
            proba = proba_of(X[test], weight[fold, j], bias[fold, j])
            expected = metric(labels[test].numpy(), proba, weights[test].numpy())
            assert found[fold, j] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_outputs", [1, 4])
def test_probabilities_as_rows_of_each_class_weighted_by_them(n_outputs):
    X, _labels, weights, weight, bias = draw(n_outputs)
    n_classes = max(2, n_outputs)
    noise = torch.randn(N_ROWS, n_classes, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    truth = noise.softmax(dim=1)
    targets = truth[:, 1] if n_outputs == 1 else truth
    rows = TrainingRows(X=X, targets=targets, weights=weights, classes=np.arange(max(2, n_outputs)))
    proba = proba_of(X, weight[0, 0], bias[0, 0])
    expected = -log_loss(
        np.tile(np.arange(n_classes), N_ROWS),
        proba.repeat(n_classes, axis=0),
        sample_weight=(truth * weights[:, None]).flatten().numpy(),
    )
    found = scores.mean_score(rows, weight[0, 0], bias[0, 0], scores.negative_log_loss)
    assert found == pytest.approx(expected, rel=1e-12)
    agree = accuracy_score(truth.argmax(dim=1), proba.argmax(axis=1), sample_weight=weights)
    assert scores.mean_score(rows, weight[0, 0], bias[0, 0], scores.accuracy) == pytest.approx(agree, rel=1e-12)
