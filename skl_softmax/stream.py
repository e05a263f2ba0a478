"""What a stream of batches, or fits that go on from one another, carry over."""

from copy import copy
from dataclasses import asdict, fields

import numpy as np
import torch
from torch import Tensor

from skl_softmax.data import Data, as_tensor, home_of, in_coordinates, normalised, raw, spread_rows
from skl_softmax.inputs import TrainingRows
from skl_softmax.solver_parameters import takes_any_units
from skl_softmax.solvers import Memory

# How many times as large columns may be as in the rows before, and how far from the mean in units of their spread, for
# an optimiser to go on with what it knows of gradients.
NEAR_SCALE = 2.0
# Rows that tell whether they are.
TOLD_BY = 4096


class Stream:
    """What ``partial_fit`` and warm starts carry over: coordinates and the optimiser's memory.

    It is kept in NumPy arrays and plain Python, which can be stored without torch.
    """

    def __init__(self, estimator, rows: TrainingRows):
        self._key, self._takes_any_units = self._key_of(estimator, rows), takes_any_units(estimator)
        self._fit_intercept, self._layout = estimator.fit_intercept, self._layout_of(rows)
        self._coordinates = {self._layout: self._coordinates_of(rows)}  # mean and scale of the columns
        self._memory = None

    @staticmethod
    def _key_of(estimator, rows: TrainingRows) -> tuple:
        solver = estimator.solver if isinstance(estimator.solver, str) else estimator.solver.__name__
        of_solver = solver, estimator.momentum > 0, estimator.average, takes_any_units(estimator)
        return *of_solver, estimator.fit_intercept, rows.X.shape[1]

    def _layout_of(self, rows: TrainingRows) -> str:
        """What columns are centred by: of sparse rows none is."""
        return str(rows.X.layout) if self._takes_any_units else ""

    def _coordinates_of(self, rows: TrainingRows) -> tuple[np.ndarray, np.ndarray]:
        if self._takes_any_units:
            data = normalised(rows.X, rows.weights, self._fit_intercept)
        else:
            data = raw(rows.X, self._fit_intercept)
        return data.mean.cpu().numpy(), data.scale.cpu().numpy()

    def goes_on(self, estimator, rows: TrainingRows) -> bool:
        """Whether it belongs to these parameters and features."""
        return self._key == self._key_of(estimator, rows)

    def over(self, rows: TrainingRows) -> "Stream":
        """The same for the next batch, in other coordinates where dense rows follow sparse ones, or a single row."""
        layout = self._layout_of(rows)
        known = self._coordinates.get(layout)
        if known is None or self._may_tell_more(rows, known):
            own = self._coordinates_of(rows)
            if known is None or not _tell_no_scale(*own):
                return self._in(layout, own)
        return self if layout == self._layout else self._in(layout, known)

    def _may_tell_more(self, rows: TrainingRows, known: tuple[np.ndarray, np.ndarray]) -> bool:
        """Whether dense rows may tell a scale where those before them have not."""
        return self._takes_any_units and rows.X.layout == torch.strided and _tell_no_scale(*known)

    def anew(self, rows: TrainingRows) -> "Stream":
        """The same for a fit, which sees all its rows: in their coordinates, if the last ones do not suit them."""
        layout = self._layout_of(rows)
        some = rows if rows.X.shape[0] <= TOLD_BY else rows.take(spread_rows(rows.X.shape[0], TOLD_BY))
        is_suited = layout == self._layout and _suit(self._coordinates[layout], self._coordinates_of(some))
        later = copy(self) if is_suited else self._in(layout, self._coordinates_of(rows))
        if later._memory is not None:
            later._memory = later._memory | {"smoothness": 0.0}
        return later

    def _in(self, layout: str, coordinates: tuple[np.ndarray, np.ndarray]) -> "Stream":
        """The same in other coordinates of the columns.

        What an optimiser knows of gradients is lost then; parameters, their mean and the number of updates are not.
        """
        later = copy(self)
        later._layout, later._coordinates = layout, self._coordinates | {layout: coordinates}
        if self._memory is not None:
            moved = {name: self._moved(self._memory[name], later) for name in ("theta", "mean")}
            later._memory = self._memory | moved | {"state": {}, "group": {}, "smoothness": 0.0}
        return later

    def _moved(self, theta: np.ndarray, later: "Stream") -> np.ndarray:
        """θ (1, K, p) in the coordinates of a later stream."""
        (mean, scale), (new_mean, new_scale) = (stream._coordinates[stream._layout] for stream in (self, later))
        weight = theta[..., : len(scale)] / scale
        if not self._fit_intercept:
            return weight * new_scale
        bias = theta[..., -1:] + (weight @ (new_mean - mean))[..., None]
        return np.concatenate([weight * new_scale, bias], axis=-1)

    def data(self, X: Tensor) -> Data:
        """Rows in the coordinates of the first of their storage."""
        if not self._takes_any_units:
            return raw(X, self._fit_intercept)
        mean, scale = (as_tensor(array).to(home_of(X.device)) for array in self._coordinates[self._layout])
        return in_coordinates(X, self._fit_intercept, mean, scale)

    def after(self, memory: Memory) -> "Stream":
        """The same with what a call has left."""
        later = copy(self)
        later._memory = _map(asdict(memory), Tensor, lambda tensor: tensor.cpu().numpy().copy())
        return later

    def recall(self) -> Memory | None:
        """What the last call has left."""
        if self._memory is None or self._memory.keys() != {field.name for field in fields(Memory)}:
            return None  # or an earlier version has left it
        return Memory(**_map(self._memory, np.ndarray, lambda array: torch.from_numpy(array.copy())))


def _suit(coordinates: tuple[np.ndarray, np.ndarray], own: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether rows whose own mean and scale are these are about as large in the coordinates of others.

    A scale of 1 may be that of a column that is constant here, of which there is nothing to learn.
    """
    (mean, scale), (own_mean, own_scale) = coordinates, own
    ratio, shift = np.where(own_scale == 1, 1.0, own_scale / scale), np.abs(own_mean - mean) / scale
    return bool(((ratio > 1 / NEAR_SCALE) & (ratio < NEAR_SCALE) & (shift < NEAR_SCALE)).all())


def _tell_no_scale(_: np.ndarray, scale: np.ndarray) -> bool:
    """Whether these are of rows that are all equal, as is a single one."""
    return bool((scale == 1).all())


def _map(tree, kind: type, function):
    """The tree of dicts and lists with ``function`` applied to its leaves of a kind."""
    if isinstance(tree, kind):
        return function(tree)
    if isinstance(tree, dict):
        return {key: _map(value, kind, function) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_map(value, kind, function) for value in tree]
    return tree
