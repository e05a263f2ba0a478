"""What looks on at a fit: printing, scikit-learn's callbacks, early stopping."""

from collections.abc import Callable, Sequence
from math import isfinite
from time import perf_counter

import numpy as np
import torch
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit
from torch import Tensor

from skl_softmax.inputs import TrainingRows
from skl_softmax.scores import accuracy, mean_score, negative_log_loss
from skl_softmax.solvers import Iterate
from skl_softmax.training import Problem


class Watch:
    """Told of every iterate; keeps the last one, and says whether the fit is to end.

    Parameters
    ----------
    looks : list of callables
        Called in turn with each iterate and the watch; an iterate of which any returns true is the last, as those who
        look next are told.
    """

    def __init__(self, looks: list[Callable[[Iterate, "Watch"], bool]]):
        self._looks = looks
        self.problem: Problem | None = None  # what the iterates belong to, once it is made
        self.last: Iterate | None = None
        self.curve: list[float] = []  # F at the iterates
        self._times = [perf_counter()]

    def __call__(self, iterate: Iterate) -> bool:
        self.last = iterate
        self.curve.append(iterate.value.item())
        self._times.append(perf_counter())
        asked = False
        for look in self._looks:
            asked |= look(iterate._replace(is_last=iterate.is_last or asked), self)
        return asked

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """Weight (K, d) and bias (K,) of the last iterate."""
        return self.problem.weight_and_bias(self.last.theta)

    def stored(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The same in the type in which an estimator keeps them (`Problem.stored`)."""
        return self.problem.stored(self.last.theta, dtype)

    def stream(self) -> dict:
        """What an optimiser may go on with from the last iterate."""
        return {"_stream": self.problem.stream_after(self.last.memory)} if self.last.memory else {}

    def best(self) -> Iterate | None:
        """The iterate that scored best, if any was scored."""
        return self._early_stopping.best if self._early_stopping else None

    def records(self, n_points: int, is_after: bool) -> dict:
        """When each point was reached, in seconds, and what early stopping has found.

        ``is_after`` says that iterates are those after what their value belongs to, as epochs of optimisers are.
        """
        seconds = np.array(self._times) - self._times[0]
        seconds = seconds[:n_points] if is_after else seconds[len(seconds) - n_points :]
        records, stopping = {"seconds_curve_": seconds.tolist()}, self._early_stopping
        if stopping:
            records |= {"validation_scores_": stopping.scores, "best_iteration_": stopping.best_iteration}
        return records

    @property
    def _early_stopping(self) -> "EarlyStopping | None":
        return next((look for look in self._looks if isinstance(look, EarlyStopping)), None)


class Printer:
    """A line for every ``every``-th iterate, in the manner of textbooks: cost and accuracy on the training rows.

    And the last of some ``scores``, of rows that were held out.
    """

    def __init__(self, rows: TrainingRows, every: int, max_iter: int, unit: str, scores: Sequence[float] = ()):
        self._rows, self._every, self._max_iter, self._unit, self._scores = rows, every, max_iter, unit, scores

    def __call__(self, iterate: Iterate, watch: Watch) -> bool:
        if iterate.iteration % self._every == 0:
            gap = "" if iterate.gap is None else f", gap {iterate.gap[0]:.1e}"
            score = f", validation {self._scores[-1]:.6f}" if self._scores else ""
            print(
                f"{self._unit} {iterate.iteration:4d}/{self._max_iter} Cost: {iterate.value.item():.6f}, "
                f"Accuracy: {100 * mean_score(self._rows, *watch.coefficients(), accuracy):.2f}%{gap}{score}"
            )
        return False


class FitTasks:
    """A fit and its tasks, one after the other, as scikit-learn's callbacks are told of them, if there are any."""

    def __init__(self, estimator, name: str, n_tasks: int, call: dict):
        self._estimator, self._name, self._call = estimator, name, call
        self._fit = self._task = None
        if hasattr(estimator, "_skl_callbacks"):
            context = estimator._init_callback_context(max_subtasks=n_tasks)
            self._fit = context.call_on_fit_task_begin(estimator=estimator, **call)

    @property
    def are_looked_on(self) -> bool:
        """Whether there are callbacks."""
        return self._fit is not None

    def begin(self) -> None:
        """Begin the next task."""
        if self.are_looked_on:
            task = self._fit.subcontext(task_name=self._name)
            self._task = task.call_on_fit_task_begin(estimator=self._estimator, **self._call)

    def end(self, attributes: Callable[[], dict] | None = None) -> bool:
        """End the task that has begun, if one has; with what makes an estimator ready to predict, if anything does.

        Returns whether a callback asks for an end.
        """
        task, self._task = self._task, None
        return task is not None and self._end(task, attributes)

    def finish(self, keep: Callable[[], None]) -> None:
        """End the fit, which has made the estimator ready; Ctrl-C leaves it so, by ``keep``."""
        if not self.are_looked_on:
            return
        try:
            self._end(self._fit, {})
        except KeyboardInterrupt:
            keep()
            raise

    def _end(self, task, attributes) -> bool:
        return task.call_on_fit_task_end(estimator=self._estimator, reconstruction_attributes=attributes, **self._call)


class Callbacks:
    """scikit-learn's callbacks, the last look: a task for every iteration or epoch, with an estimator fitted so far."""

    def __init__(self, tasks: FitTasks, attributes: Callable[["Watch"], dict], is_after: bool):
        self._tasks, self._attributes = tasks, attributes
        if is_after:  # iterates are told of after their iteration, and not before it
            tasks.begin()

    def __call__(self, iterate: Iterate, watch: Watch) -> bool:
        # Only made if a callback wants it.
        stop = self._tasks.end(lambda: self._attributes(watch) | watch.stream())
        if not (stop or iterate.is_last):
            self._tasks.begin()
        return stop


class EarlyStopping:
    """Scores rows that were held out; ends the fit when the score has not risen for a while, and keeps the best."""

    def __init__(self, rows: TrainingRows, tol: float, patience: int):
        self._rows, self._tol, self._patience = rows, tol, patience
        self.scores: list[float] = []
        self.best_iteration, self.best = 0, None

    def __call__(self, iterate: Iterate, watch: Watch) -> bool:
        score = mean_score(self._rows, *watch.coefficients(), negative_log_loss)
        self.scores.append(score)
        best = self.scores[self.best_iteration]
        if isfinite(score) and (self.best is None or score > best + self._tol * abs(best)):
            self.best_iteration, self.best = len(self.scores) - 1, iterate
        return len(self.scores) - 1 - self.best_iteration >= self._patience


def hold_out(rows: TrainingRows, fraction: float, generator: torch.Generator) -> tuple[TrainingRows, TrainingRows]:
    """The rows without, and with, a random part of each class, or of all rows if targets are probabilities."""
    seed = int(torch.randint(2**31, (), generator=generator))
    if rows.has_labels:
        counts = torch.bincount(rows.targets, minlength=len(rows.classes)).cpu().numpy()
        if (lonely := rows.classes[counts == 1]).size:
            others = f" (and of {len(lonely) - 1} others)" if len(lonely) > 1 else ""
            raise ValueError(
                "early_stopping=True holds out rows of each class, but y has a single row of the class "
                f"{lonely.tolist()[0]!r}{others}. Leave such rows out, pass more, or set early_stopping=False."
            )
    split = StratifiedShuffleSplit if rows.has_labels else ShuffleSplit
    try:
        (parts,) = split(1, test_size=fraction, random_state=seed).split(rows.weights, rows.targets)
    except ValueError as error:
        raise ValueError(
            f"early_stopping=True holds out validation_fraction={fraction:g} of the rows, of each class the same. Here "
            f"that cannot be done: {error}"
        ) from error
    return tuple(rows.take(torch.from_numpy(part).sort().values) for part in parts)
