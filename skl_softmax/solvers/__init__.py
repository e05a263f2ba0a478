"""The ways to minimise F, by name.

To add one: write ``(objective, start, options) -> SolveResult`` in a file of its own and name it in `SOLVERS`; the
tests and benchmarks then cover it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from skl_softmax.solvers.base import Objective, SolveResult, SolverOptions, Status
from skl_softmax.solvers.lbfgs import lbfgs
from skl_softmax.solvers.newton import newton, optimality
from skl_softmax.solvers.stochastic import PATIENCE, sgd

__all__ = [
    "PATIENCE",
    "SOLVERS",
    "Objective",
    "SolveResult",
    "Solver",
    "SolverOptions",
    "Status",
    "choose_solver",
    "optimality",
]


@dataclass(frozen=True)
class Solver:
    """A solver and what it wants to be given.

    ``affine_invariant`` solvers take the same steps whatever the units of the columns, so they are given the
    standardised columns, where rounding does least harm, and they estimate F - F* themselves. The others
    are defined by the columns as they are.
    """

    minimise: Callable[..., SolveResult]
    affine_invariant: bool


SOLVERS = {
    "newton": Solver(newton, affine_invariant=True),
    "lbfgs": Solver(lbfgs, affine_invariant=True),
    "sgd": Solver(sgd, affine_invariant=False),
}


def choose_solver(objective: Objective) -> str:
    """The name of the solver that ``solver="auto"`` stands for."""
    return "newton" if objective.prefers_newton else "lbfgs"
