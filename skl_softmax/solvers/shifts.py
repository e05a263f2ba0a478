"""What the parameters of all classes have in common: it changes no probability, and only norms bound it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from skl_softmax.solvers.base import PenalisedObjective

# Part of the largest parameter that is no shift but rounding.
ROUNDING = 8 * torch.finfo(torch.float64).eps
# Part of the largest curvature that is next to none: √eps of float32, in which products may be.
FLAT = 3e-4


@dataclass
class Shifts:
    """The numbers that may be added to the parameters of all classes, in columns that have an L1 penalty.

    Of parameters v of a working set (P,), for the quadratic model of F at θ, whose ridge is of v - θ.
    """

    index: Tensor  # (K, columns), of the parameters
    theta: Tensor  # (K, columns)
    l1: Tensor  # (columns,)
    l2: Tensor  # (columns,)
    ridge: Tensor  # (columns,)
    is_flat: Tensor  # (columns,), bool, where these curve next to nothing

    def shifted(self, vector: Tensor) -> Tensor:
        """The vector (P,), shifted in each column to where the penalties are least.

        l1 |v - c|₁ + ½ κ K (c - b)² is least at the median of the K numbers v and the K + 1 numbers
        b + l1 / (κ K) (K - 2j): Li & Osher (2009), "A new median formula with applications to PDE based denoising".
        Without curvature κ they are infinite, but for one if K is even, and b zero is as good as any between.
        """
        if not self.index.numel():
            return vector
        v = vector[self.index]  # (K, columns)
        n_classes, curvature = len(v), self.l2 + self.ridge  # (columns,)
        pulled = self.l2 * v.mean(dim=0) + self.ridge * (v - self.theta).mean(dim=0)  # (columns,)
        base = torch.where(curvature > 0, pulled / curvature, 0.0)  # (columns,)
        signs = n_classes - 2 * torch.arange(n_classes + 1).to(v)[:, None]  # (K + 1, 1)
        reach = torch.where(signs == 0, 0.0, signs * (self.l1 / (n_classes * curvature)))  # (K + 1, columns)
        shift = torch.cat([v, base + reach]).median(dim=0).values  # (columns,)
        shift = torch.where(shift.abs() > ROUNDING * v.abs().amax(dim=0), shift, 0.0)
        return vector.index_put((self.index,), v - shift)

    def hold(self, free: Tensor, vector: Tensor) -> Tensor:
        """Of parameters ``free`` (P,), bool, those that are to move: all but one in each column of which all are free.

        One at zero stays, as shifting the others does what it would; or any, where nothing curves what all have in
        common. Conjugate gradients would go 1e31 that way, and their step end at the first zero: counts of words took
        up to 17,000 passes for 1,100.
        """
        if not self.index.numel():
            return free
        smallest, classes = vector[self.index].abs().min(dim=0)  # (columns,), (columns,)
        is_common = free[self.index].all(dim=0) & ((smallest == 0) | self.is_flat)  # (columns,)
        held = self.index.gather(0, classes[None])[0, is_common]
        return free.index_fill(0, held, False)


NO_SHIFTS = Shifts(torch.empty(0, 0, dtype=torch.long), *torch.empty(5, 0))


def shifts_of(objective: PenalisedObjective, model: int, index: Tensor, theta: Tensor, damping: float) -> Shifts:
    """Those of one of the models at θ (K, p), for parameters ``index`` (P,) and a ridge of this part of the bound."""
    if len(theta) == 1:
        return NO_SHIFTS
    inside = torch.zeros(theta.numel(), dtype=torch.bool, device=theta.device).index_fill_(0, index, True)
    columns = inside.view_as(theta).all(dim=0) & (objective.column_l1[model, 0] > 0)  # (p,)
    penalties = objective.column_l1, objective.column_l2, objective.diagonal_bound
    l1, l2, bound = (each[model, 0, columns] for each in penalties)  # (columns,)
    place, ridge = (inside.cumsum(0) - 1).view_as(theta), damping * bound  # (K, p), (columns,)
    return Shifts(place[:, columns], theta[:, columns], l1, l2, ridge, l2 + ridge <= FLAT * bound)
