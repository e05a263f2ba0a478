"""Most benchmarks run, on small problems, so that they cannot rot; `descent`, `probe` and `iris.py` are left out."""

import json
import sys

import numpy as np
import pytest
from reference import converged, objective

from benchmarks import measure
from benchmarks.peers import OURS
from benchmarks.problems import PROBLEMS


def test_run_and_report(tmp_path, monkeypatch, capsys):
    from benchmarks.__main__ import main

    path = tmp_path / "speed.json"
    peers = [OURS, "LogisticRegression(newton-cholesky)"]
    command = ["run", "--problems", "iris", "--C", "1", "--limit", "5", "--results", str(path), "--peers", *peers]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *command])
    main()
    monkeypatch.setattr(sys, "argv", ["benchmarks", "report", "--results", str(path)])
    main()
    (result,) = json.loads(path.read_text())["results"]
    assert {t["peer"] for t in result["reached"]} == set(peers)
    assert "| iris" in path.with_suffix(".md").read_text()
    assert path.with_suffix(".png").stat().st_size > 10_000
    assert "tiny" in capsys.readouterr().out


def test_peers_are_waited_for_while_they_may_be_the_quickest(monkeypatch):
    """Those of two threads do not try what one has shown to be too rough, and nobody is waited for without need."""
    from benchmarks import run
    from benchmarks.peers import Setting

    allowed, objectives = [], {"tol=0.1": 1.1, "tol=0.01": 1.0}

    def fit(setting, X, y, C, seconds):
        allowed.append((setting.peer, setting.label, seconds))
        return 2.0, setting, False

    monkeypatch.setattr(run.measure, "fit", fit)
    monkeypatch.setattr(run.measure, "objective", lambda setting, *_: objectives[setting.accuracy])
    peers = ("A", 1), ("A", 2), ("B", 1)
    entries = [Setting(peer, accuracy, None, n) for peer, n in peers for accuracy in objectives]
    entries.insert(0, Setting(OURS, "tol=0.01", None))
    run.search(entries, None, None, 1.0, target=1e-6, limit=60.0)
    assert allowed == [
        (OURS, "tol=0.01", 60.0),
        ("A", "tol=0.1, 1 thread", 60.0), ("A", "tol=0.01, 1 thread", 60.0), ("A", "tol=0.01, 2 threads", 6.0),
        ("B", "tol=0.1, 1 thread", 6.0), ("B", "tol=0.01, 1 thread", 6.0),
    ]  # fmt: skip


@pytest.mark.parametrize("warns", [False, True])
def test_peers_that_stop_for_another_reason_than_tolerances_are_not_tried_with_others(monkeypatch, warns):
    """As Newton's method that falls back to lbfgs; one that does not warn may have been close to both tolerances."""
    from benchmarks import run
    from benchmarks.peers import Setting

    objectives = {"tol=1e-1": 1.5, "tol=1e-2": 1.5, "tol=1e-3": 1.0}
    monkeypatch.setattr(run.measure, "fit", lambda setting, *_: (2.0, setting, warns))
    monkeypatch.setattr(run.measure, "objective", lambda setting, *_: objectives[setting.accuracy])
    entries = [Setting(OURS, "tol=1e-3", None), *(Setting("A", accuracy, None, 1) for accuracy in objectives)]
    entries.append(Setting("A", "tol=1e-3", None, 2))
    tried = run.search(entries, None, None, 1.0, target=1e-6, limit=60.0)
    assert len(tried) == (3 if warns else 5)


def test_every_contestant_has_a_colour():
    from benchmarks.peers import REFERENCE, settings
    from benchmarks.report import COLORS

    assert {setting.peer for setting in settings()} == {REFERENCE, *COLORS}


def test_its_objective_is_that_of_the_tests():
    X, y = PROBLEMS["wine"].data(None)
    model = converged(X, y, C=2.0)
    assert measure.objective(model, X, y, 2.0) == pytest.approx(objective(model, X, y, C=2.0), rel=1e-12)


def test_l1_beside_saga(tmp_path, monkeypatch, capsys):
    from benchmarks import l1

    monkeypatch.setattr(l1, "TABLES", {"iris": (PROBLEMS["iris"].data, (0.1, 1.0))})
    l1.main(tmp_path, None, limit=5.0)
    results = json.loads((tmp_path / "l1.json").read_text())["results"]
    assert len(results) == 4
    for result in results:
        assert result["gap"] <= 1e-6
        assert result["peers"]["saga"]["seconds"] < 5
    assert "| iris" in (tmp_path / "l1.md").read_text()
    assert "Geometric mean" in capsys.readouterr().out


def test_predictions(tmp_path, capsys):
    from benchmarks import predict

    predict.main(tmp_path, None, ["iris", "breast_cancer"])
    results = json.loads((tmp_path / "predict.json").read_text())["results"]
    assert [r["problem"] for r in results] == ["iris", "breast_cancer"]
    assert all(0 < s < 1 for r in results for seconds in r["seconds"].values() for s in seconds)
    assert "| iris" in (tmp_path / "predict.md").read_text()
    assert "Geometric mean" in capsys.readouterr().out


def test_losses_that_peers_are_held_against_are_clipped():
    from benchmarks import sweep

    X = np.array([-1.0, 1.0] * 20 + [500.0, 500.0])[:, None]
    y = np.array([0, 1] * 20 + [0, 1])
    folds = [(np.arange(40), [40, 41])]
    reference = sweep.clipped(1e-12).set_params(Cs=[1e4], cv=folds).fit(X, y)
    ours = sweep.ours(1e-12).set_params(Cs=[1e4], cv=folds).fit(X, y)
    assert ours.scores_.item() < -1000
    assert reference.scores_.item() == pytest.approx(0.5 * np.log(np.finfo(float).eps), rel=1e-6)


def test_sweep_beside_the_loops(tmp_path, monkeypatch, capsys):
    from benchmarks import sweep

    monkeypatch.setattr(
        sweep, "settings", lambda *_: [("LogisticRegressionCV", [(sweep.peer, "newton-cholesky", 1e-4, 1)])]
    )
    sweep.main(tmp_path, None, limit=20.0, names=["iris"])
    (result,) = json.loads((tmp_path / "sweep.json").read_text())["results"]
    assert result["error"] <= sweep.RIGHT
    assert result["C"] == result["best"]
    assert "| iris" in (tmp_path / "sweep.md").read_text()
    assert "Geometric mean" in capsys.readouterr().out


def test_cluster(tmp_path, monkeypatch, capsys):
    from benchmarks import cluster

    small = {"PARTITIONS": (2,), "WORKERS": (1,), "MANY": (1, 2), "EVALUATIONS": 2}
    for name, value in {**small, "LATE_WORKERS": (1,), "DELAYS": (0.0, 0.02)}.items():
        monkeypatch.setattr(cluster, name, value)
    cluster.main(tmp_path, rows=5000, features=5, gigabytes=1e-4)
    record = json.loads((tmp_path / "dask.json").read_text())
    assert record["large"]["fits"][-1]["difference"] < 1e-3
    assert all(0 < p["compute"] < p["seconds"] for p in record["partitions"])
    assert cluster.messages_of(record)[1] > 1
    assert "| 1 workers" in (tmp_path / "dask.md").read_text()
    assert "The model" in capsys.readouterr().out


def test_a_fit_is_stopped_at_the_limit():
    class Endless:
        def fit(self, X, y):
            while True:
                pass

    class Setting:
        n_threads = 1

        def make(self, C, n):
            return Endless()

    seconds, model, _ = measure.fit(Setting(), np.zeros((1, 1)), None, 1.0, 0.05)
    assert (seconds, model) == (np.inf, None)
