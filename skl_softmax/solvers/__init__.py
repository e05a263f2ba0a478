"""The ways to minimise F, by name.

To add one: write ``(objective, start, options) -> SolveResult`` in a file of its own and name it in `SOLVERS`; the
tests then cover it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from skl_softmax.solvers.base import Iterate, Objective, SolveResult, SolverOptions, Status, inner
from skl_softmax.solvers.lbfgs import lbfgs
from skl_softmax.solvers.newton import newton, optimality
from skl_softmax.solvers.proximal import proximal
from skl_softmax.solvers.stochastic import SCHEDULES, DescentOptions, Memory, descend

__all__ = [
    "DETERMINISTIC",
    "SCHEDULES",
    "SOLVERS",
    "DescentOptions",
    "Iterate",
    "Memory",
    "Objective",
    "SolveResult",
    "Solver",
    "SolverOptions",
    "Status",
    "choose_solver",
    "find_solver",
    "inner",
    "optimality",
]


@dataclass(frozen=True)
class Solver:
    """A solver and what it wants to be given.

    Those without an ``optimizer`` take the same steps whatever the units of the columns, so they are given the
    standardised columns, where rounding does least harm, and they estimate F - F* themselves. The others
    take steps by one of torch's.
    """

    minimise: Callable[..., SolveResult]
    optimizer: type[torch.optim.Optimizer] | None = None
    takes_l1: bool = False


SOLVERS = {
    "newton": Solver(newton),
    "lbfgs": Solver(lbfgs),
    "proximal": Solver(proximal, takes_l1=True),
    "sgd": Solver(descend, optimizer=torch.optim.SGD),
    "adam": Solver(descend, optimizer=torch.optim.Adam),
}
# Those that go to the minimum, and tell how near they are.
DETERMINISTIC = tuple(name for name, solver in SOLVERS.items() if solver.optimizer is None)


def find_solver(solver: str | type[torch.optim.Optimizer]) -> Solver:
    """The solver of a name, or descent by a class of optimisers."""
    if isinstance(solver, str):
        return SOLVERS[solver]
    return Solver(descend, optimizer=solver)


def choose_solver(objective: Objective) -> str:
    """The name of the solver that ``solver="auto"`` stands for."""
    if not objective.is_smooth:
        return "proximal"
    return "newton" if objective.prefers_newton else "lbfgs"
