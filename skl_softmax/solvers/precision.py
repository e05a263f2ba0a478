"""From float32 to float64."""

from skl_softmax.solvers.base import Metric, Objective, inner
from skl_softmax.solvers.run import Run

# Relative gap at which a run leaves float32 for float64, unless that will do to the end. Its rounding moves F by some
# 1e-8 of itself; of 1e-4, 1e-5 and 1e-6 the last was as fast as any on four large tables.
NARROW_ACCURACY = 1e-6
# What float32 may lose of a gap that ends a run, of whose square root it then takes a thirtieth.
NARROW_LOSS = 1e-3


class Precision:
    """The type of the products of a run that begins in float32, if it does, and goes on with ``objective``."""

    def __init__(self, run: Run, objective: Objective):
        self._run, self._objective = run, objective
        self._is_narrow = run.objective is not objective
        self._will_do = False  # whether float32 leads to the end

    def is_lost(self) -> bool:
        """Whether float32 is too rough to lead any further."""
        return self._is_narrow and self._run.is_lost_in_rounding()

    def is_at_end(self, gap: list[float], metric: Metric) -> bool:
        """Whether float32 has led as near as it leads; where that will do to the end, F goes by its changes instead."""
        if not self._may_widen:
            return False
        values = self._run.point.value.tolist()
        if not any(g <= NARROW_ACCURACY * abs(value) for g, value in zip(gap, values, strict=True)):
            return False
        self._will_do = self._loses_nothing(metric)
        if self._will_do:
            self._run.go_by_changes()
        return not self._will_do

    def widen_here(self, knows_gap: bool = True) -> None:
        """Go on in float64, from the same point, whose gap may not be known."""
        self._run.widen_here(self._objective, knows_gap)
        self._is_narrow = False

    def end_here(self) -> None:
        """Leave float32, and changes of F in it, if the run is in it still: what follows knows only of float64."""
        if self._is_narrow:
            self._run.widen(self._objective)
            self._is_narrow = False
        self._run.begin_anew()

    def widen_ahead(self, metric: Metric) -> None:
        """Take the next step in float64, if it is to lead as near as float32 does: to leave that there takes a pass.

        Only metrics that follow the Hessian tell where a step leads.
        """
        if not self._may_widen or not metric.follows or not self._run.is_next_close(NARROW_ACCURACY):
            return
        if not self._loses_nothing(metric):
            self._run.widen(self._objective)
            self._is_narrow = False

    @property
    def _may_widen(self) -> bool:
        return self._is_narrow and not self._will_do

    def _loses_nothing(self, metric: Metric) -> bool:
        """Whether what float32 loses of F would not end the run, and of its gap is next to nothing of what does.

        With gradients that are off by e the run leads to where a gap of ½ eᵀ H⁻¹ e is left.
        """
        run = self._run
        lost, passes = run.of_these(self._objective).rounding(run.theta)
        run.n_passes += passes
        of_gap = 0.5 * inner(lost.gradient, metric.solve(lost.gradient))  # (M,)
        return run.are_within_tol((of_gap / NARROW_LOSS).tolist()) and run.are_within_tol(lost.value.abs().tolist())
