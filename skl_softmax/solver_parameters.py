"""What an estimator's parameters say of its solver."""

from math import inf, isinf
from typing import NamedTuple

import torch

from skl_softmax.solvers import SCHEDULES, SOLVERS, find_solver

# Optimisers for other parameters than dense ones of any shape.
UNFIT = tuple(getattr(torch.optim, name) for name in ("Muon", "SparseAdam") if hasattr(torch.optim, name))


class Penalty(NamedTuple):
    """Of a weight W, in units of 1/S: ρ/C ‖W‖₁ + (1 - ρ)/(2C) ‖W‖²."""

    l1_ratio: float  # ρ
    C: float

    @property
    def has_l1(self) -> bool:
        """Whether there is an L1 penalty."""
        return self.l1_ratio > 0 and not isinf(self.C)

    @property
    def kind(self) -> str | None:
        """Its name in scikit-learn."""
        return None if isinf(self.C) else {0: "l2", 1: "l1"}.get(self.l1_ratio, "elasticnet")


NO_PENALTY = Penalty(0.0, inf)


def penalty_of(estimator) -> Penalty:
    """That of the estimator's parameters."""
    return Penalty(estimator.l1_ratio, estimator.C)


def check_solver(estimator) -> None:
    """Refuse what is no solver, and a penalty that the solver does not know."""
    name, base = estimator.solver, torch.optim.Optimizer
    is_class = isinstance(name, type) and issubclass(name, base) and name is not base
    if not (is_class or isinstance(name, str)):
        raise TypeError(
            f"solver={name!r} is no optimiser: pass a class of torch.optim.Optimizer, or one of 'auto', "
            f"{', '.join(map(repr, SOLVERS))}."
        )
    if is_class and issubclass(name, UNFIT):
        raise ValueError(
            f"solver={name!r} is for other models: it wants matrices for parameters, or sparse gradients, and gets "
            "neither here. Set solver='adam', or another class of torch.optim."
        )
    check_penalty(name, penalty_of(estimator))


def check_penalty(solver, penalty: Penalty, names: tuple[str, str] = ("l1_ratio", "C")) -> None:
    """Refuse a penalty that the solver does not know; ``names`` are those of the parameters that hold it."""
    if penalty.has_l1 and solver != "auto" and not find_solver(solver).takes_l1:
        raise ValueError(
            f"solver={solver!r} takes no L1 penalty, but {names[0]}={penalty.l1_ratio:g}. Set solver='auto' or "
            f"solver='proximal', or no {names[0]} but 0."
        )
    if solver == "proximal" and isinf(penalty.C):
        raise ValueError(
            f"solver='proximal' needs a penalty, but {names[1]}=inf. Set solver='auto', or no {names[1]} but finite."
        )


def rate_of(estimator) -> float | str:
    """The learning rate, a number or "auto", with which a schedule begins if there is one."""
    return estimator.learning_rate_init if estimator.learning_rate in SCHEDULES else estimator.learning_rate


def has_partial_fit(estimator) -> bool:
    """True for optimisers, and for what is no solver, as the call will say; for others an error that names them."""
    is_known = not isinstance(estimator.solver, str) or estimator.solver in {"auto", *SOLVERS}
    if not is_known or uses_optimizer(estimator):
        return True
    raise AttributeError(f"partial_fit is for optimisers such as solver='sgd', not for solver={estimator.solver!r}.")


def draws(estimator) -> bool:
    """Whether a fit needs random numbers."""
    return uses_optimizer(estimator) or estimator.early_stopping


def uses_optimizer(estimator) -> bool:
    """Whether the estimator's solver is an optimiser of torch's."""
    return estimator.solver != "auto" and find_solver(estimator.solver).optimizer is not None


def takes_any_units(estimator) -> bool:
    """Whether steps are taken in normalised columns: not with a rate that was set for the columns as they are."""
    return rate_of(estimator) == "auto"
