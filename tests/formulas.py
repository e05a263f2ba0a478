"""By which formulas a small table is fitted, in tests of those for large ones."""

from skl_softmax import training
from skl_softmax.objective import Objective


def take_general_formulas(monkeypatch) -> None:
    """Fit small tables by the formulas of large ones, in torch and in blocks."""
    monkeypatch.setattr(training, "_kind_of", lambda *_: Objective)
