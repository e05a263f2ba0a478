"""F of rows that come in blocks: each sum goes through them once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor

from skl_softmax import parts, pieces
from skl_softmax.data import RowBlocks, n_bytes
from skl_softmax.inputs import TrainingRows, note_features, refuse_beside_blocks
from skl_softmax.solver_parameters import penalty_of
from skl_softmax.targets import has_columns


@dataclass(frozen=True)
class PlacedBlocks:
    """The rows of a fit."""

    groups: Callable[[], Iterator[pieces.RowGroup]]  # goes through all rows
    total: pieces.Tally
    sample: TrainingRows

    def objective(self, C: float, fit_intercept: bool) -> parts.PartsObjective:
        """F of the rows."""
        data = parts.sample_coordinates(self.sample, self.total, fit_intercept)

        def sum_of(quantity: parts.Quantity, *vectors: Tensor) -> list[Tensor]:
            sums = (
                parts.add_up(quantity, parts.make_parts([group], data, self.total.total_weight), *vectors)
                for group in self.groups()
            )
            if (total := reduce(lambda a, b: parts.merge_sums([a, b]), sums)) is None:
                raise ValueError("No row of the blocks has a positive weight, but some had when first gone through.")
            return total

        return parts.make_parts_objective(sum_of, self.sample, data, self.total, C)


def place_blocks(estimator, blocks: RowBlocks, y, sample_weight, classes) -> PlacedBlocks:
    """Go through the blocks twice: to check them and find the classes, and to draw a sample of the rows."""
    _check(estimator, y, sample_weight)
    checker = clone(estimator)
    counts, is_soft, layout, n_rows, size = _look_through(estimator, checker, blocks, classes)
    found, weights = pieces.settle_classes(counts, classes, is_soft)
    encoder = pieces.make_encoder(checker, found, weights)

    def groups() -> Iterator[pieces.RowGroup]:
        given = 0
        for number, block in enumerate(blocks):
            piece = _load(number, checker, block, classes)
            if piece is not None:
                _refuse_another_layout(piece, layout)
                given += len(piece.X)
            yield pieces.encode([piece], encoder, found if classes is None else classes)
        if given != n_rows:
            raise ValueError(f"The blocks gave {given} rows, but {n_rows} when they were gone through first.")

    share = pieces.sample_share(n_rows, size, estimator.n_features_in_ + 1, len(found))
    total, drawn = None, []
    for group in groups():
        drawn.append(pieces.draw(group, share, 0 if total is None else total.n_rows))
        total = pieces.merge_tallies([total, pieces.tally(group)])
    if total is None:
        raise ValueError("class_weight and sample_weight leave no row with a positive weight.")
    return PlacedBlocks(groups, total, pieces.join(drawn))


def _look_through(
    estimator, checker, blocks: RowBlocks, classes
) -> tuple[pieces.Counts | None, bool, torch.layout | None, int, int]:
    """What the labels weigh, whether they are probabilities, the layout of X, the number of its rows and its bytes.

    The features are noted by both estimators.
    """
    counts, is_soft, layout, n_rows, size = None, False, None, 0, 0
    for number, block in enumerate(blocks):
        if layout is None and np.shape(block[0])[:1] != (0,):  # the first that has rows
            note_features(estimator, block[0])
            note_features(checker, block[0])
            is_soft = has_columns(block[1])
        if (piece := _load(number, checker, block, classes)) is not None:
            if has_columns(piece.y) != is_soft:
                raise ValueError(f"{piece.name}: y holds probabilities where others hold labels, or the reverse.")
            layout = piece.X.layout if layout is None else layout
            _refuse_another_layout(piece, layout)
            counts = pieces.merge_counts([counts, pieces.count_labels(piece)])
            n_rows, size = n_rows + len(piece.X), size + n_bytes(piece.X) + (piece.y.nbytes if is_soft else 0)
    return counts, is_soft, layout, n_rows, size


def _refuse_another_layout(piece: pieces.Piece, layout: torch.layout) -> None:
    if piece.X.layout != layout:
        raise ValueError(f"{piece.name}: X is sparse where others are dense, or the reverse.")


def _load(number: int, checker, block: tuple, classes) -> pieces.Piece | None:
    return pieces.load_piece(f"Block {number}", checker, *block, classes)


def _check(estimator, y, sample_weight) -> None:
    refuse_beside_blocks(y, sample_weight)
    is_known = not penalty_of(estimator).has_l1 and estimator.solver in parts.PARTS_SOLVERS
    if not is_known or estimator.early_stopping:
        raise ValueError(
            "Blocks of rows are fitted by solver 'auto', 'newton' or 'lbfgs', with l1_ratio=0 and "
            "early_stopping=False. For optimisers, call partial_fit with each block."
        )
