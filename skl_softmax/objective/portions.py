"""Rows in portions: blocks of them, with their targets and weights."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from skl_softmax.data import Block, Data
from skl_softmax.objective.stretches import WHOLE, Stretch


class Portion(NamedTuple):
    """A block of rows, with what belongs to them of the models of a stretch."""

    block: Block
    targets: Tensor  # (parts, 1, 1 or K, part)
    weights: Tensor  # (parts, models or 1, 1, part)
    stretch: Stretch


@dataclass(frozen=True, eq=False)
class Portions:
    """Those of rows with targets, weights and probabilities of labels as of `skl_softmax.objective.Objective`."""

    data: Data
    targets: Tensor
    weights: Tensor
    label_proba: Tensor | None
    _kept: dict[int | str, list[Portion]] = field(default_factory=dict)

    def of_all(self, n_logits: int) -> Iterator[Portion]:
        """All rows, for so many logits of each."""
        return self._keep(n_logits, lambda: map(self.of, self.data.blocks(n_logits)))

    def of_stretches(self, stretches: list[Stretch], n_outputs: int) -> Iterator[Portion]:
        """The rows of stretches, each for so many logits of its models."""

        def made() -> Iterator[Portion]:
            for stretch in stretches:
                for block in self.data.blocks(len(stretch.models) * n_outputs, stretch.rows):
                    yield self.of(block, stretch)

        return self._keep("stretches", made)

    def _keep(self, name: int | str, make: Callable[[], Iterator[Portion]]) -> Iterator[Portion]:
        """The portions that are made, from a list of them where they are parts of a design that is kept."""
        if not self.data.keeps:
            return make()
        if name not in self._kept:
            self._kept[name] = list(make())
        return iter(self._kept[name])

    def of(self, block: Block, stretch: Stretch = WHOLE) -> Portion:
        """A block with what belongs to its rows."""
        return Portion(block, self._targets(block), stretch.some(_rows(self.weights, block), dim=1), stretch)

    def _targets(self, block: Block) -> Tensor:
        if self.targets.ndim == 1 and self.label_proba is None:
            return _rows(self.targets[None], block)  # (parts, 1, 1, part)
        targets = self.targets[block.rows]
        if self.targets.ndim == 1:
            targets = self.label_proba[targets].to(self.data.dtype)  # (rows, K)
        return targets.unflatten(0, block.parts).mT.contiguous()[:, None]  # (parts, 1, K, part)


def _rows(by_row: Tensor, block: Block) -> Tensor:
    """A block's part of what there is of each row, (models, n), laid out as logits are."""
    return by_row[:, block.rows].unflatten(1, block.parts).transpose(0, 1)[:, :, None]  # (parts, models, 1, part)
