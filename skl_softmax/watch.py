"""What looks on at a fit: printing, scikit-learn's callbacks, early stopping."""

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

import numpy as np
import torch
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit
from torch import Tensor

from skl_softmax.data import take_rows
from skl_softmax.inputs import TrainingRows
from skl_softmax.scores import accuracy, mean_score, negative_log_loss
from skl_softmax.solvers import Iterate
from skl_softmax.training import Problem


class Watch:
    """Told of every iterate; keeps the last one, and says whether the fit is to end.

    Parameters
    ----------
    looks : list of callables
        Called with each iterate and a function that gives its weight (K, d) and bias (K,); an iterate of which any
        returns true is the last.
    """

    def __init__(self, looks: list[Callable[[Iterate, Callable], bool]]):
        self._looks = looks
        self.problem: Problem | None = None  # what the iterates belong to, once it is made
        self.last: Iterate | None = None
        self._times = [perf_counter()]

    def __call__(self, iterate: Iterate) -> bool:
        self.last = iterate
        self._times.append(perf_counter())
        asked = [look(iterate, self.coefficients) for look in self._looks]
        return any(asked)

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """Weight (K, d) and bias (K,) of the last iterate."""
        return self.problem.objective.data.from_theta(self.last.theta[0])

    def stream(self) -> dict:
        """What an optimiser may go on with from the last iterate."""
        return {"_stream": self.problem.stream_after(self.last.memory())} if self.last.memory else {}

    def best(self) -> Iterate | None:
        """The iterate that scored best, if any was scored."""
        return self._early_stopping.best if self._early_stopping else None

    def records(self, n_points: int) -> dict:
        """When each of the last points was reached, in seconds, and what early stopping has found."""
        seconds = np.array(self._times) - self._times[0]
        records, stopping = {"seconds_curve_": seconds[len(seconds) - n_points :].tolist()}, self._early_stopping
        if stopping:
            records |= {"validation_scores_": stopping.scores, "best_iteration_": stopping.best_iteration}
        return records

    @property
    def _early_stopping(self) -> "EarlyStopping | None":
        return next((look for look in self._looks if isinstance(look, EarlyStopping)), None)


class Printer:
    """A line for every ``every``-th iterate, in the manner of textbooks: cost and accuracy on the training rows."""

    def __init__(self, rows: TrainingRows, every: int, max_iter: int, unit: str):
        self._rows, self._every, self._max_iter, self._unit = rows, every, max_iter, unit

    def __call__(self, iterate: Iterate, coefficients) -> bool:
        if iterate.iteration % self._every == 0:
            gap = "" if iterate.gap is None else f", gap {iterate.gap[0]:.1e}"
            print(
                f"{self._unit} {iterate.iteration:4d}/{self._max_iter} Cost: {iterate.value.item():.6f}, "
                f"Accuracy: {100 * mean_score(self._rows, *coefficients(), accuracy):.2f}%{gap}"
            )
        return False


class Callbacks:
    """scikit-learn's callbacks: one task for every iteration or epoch, with an estimator fitted so far."""

    def __init__(self, estimator, context, call: dict, attributes: Callable[[Tensor, Tensor], dict], is_after: bool):
        self._estimator, self._context, self._call, self._attributes = estimator, context, call, attributes
        self._is_after = is_after  # whether iterates are told of after their iteration, and not before it
        self._task = self._begin() if is_after else None

    def __call__(self, iterate: Iterate, coefficients) -> bool:
        stop = False
        if self._task is not None:
            fitted = lambda: self._attributes(*coefficients())  # noqa: E731, only made if a callback wants it
            stop = self._task.call_on_fit_task_end(
                estimator=self._estimator, reconstruction_attributes=fitted, **self._call
            )
        self._task = None if stop or iterate.is_last else self._begin()
        return stop

    def _begin(self):
        task = self._context.subcontext(task_name="epoch" if self._is_after else "iteration")
        return task.call_on_fit_task_begin(estimator=self._estimator, **self._call)


class EarlyStopping:
    """Scores rows that were held out; ends the fit when the score has not risen for a while, and keeps the best."""

    def __init__(self, rows: TrainingRows, tol: float, patience: int):
        self._rows, self._tol, self._patience = rows, tol, patience
        self.scores: list[float] = []
        self.best_iteration, self.best = 0, None

    def __call__(self, iterate: Iterate, coefficients) -> bool:
        self.scores.append(mean_score(self._rows, *coefficients(), negative_log_loss))
        best = self.scores[self.best_iteration]
        if self.best is None or self.scores[-1] > best + self._tol * abs(best):
            self.best_iteration, self.best = len(self.scores) - 1, iterate
        return len(self.scores) - 1 - self.best_iteration >= self._patience


def hold_out(rows: TrainingRows, fraction: float, generator: torch.Generator) -> tuple[TrainingRows, TrainingRows]:
    """The rows without, and with, a random part of each class, or of all rows if targets are probabilities."""
    seed = int(torch.randint(2**31, (), generator=generator))
    split = StratifiedShuffleSplit if rows.has_labels else ShuffleSplit
    try:
        (parts,) = split(1, test_size=fraction, random_state=seed).split(rows.weights, rows.targets)
    except ValueError as error:
        raise ValueError(
            f"early_stopping=True holds out validation_fraction={fraction:g} of the rows, of each class the same. Here "
            f"that cannot be done: {error}"
        ) from error
    return tuple(take(rows, torch.from_numpy(part).sort().values) for part in parts)


def take(rows: TrainingRows, index: Tensor) -> TrainingRows:
    """Some of the rows."""
    return replace(rows, X=take_rows(rows.X, index), targets=rows.targets[index], weights=rows.weights[index])
