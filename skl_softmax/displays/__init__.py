"""Pictures of fitted estimators, in the manner of scikit-learn's displays. They need matplotlib (the extra "plot")."""

from skl_softmax.displays.coefficients import CoefficientDisplay
from skl_softmax.displays.convergence import ConvergenceDisplay
from skl_softmax.displays.regularization_path import RegularizationPathDisplay

__all__ = ["CoefficientDisplay", "ConvergenceDisplay", "RegularizationPathDisplay"]
