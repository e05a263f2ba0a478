"""What a bug report needs to say of the machine."""

from importlib.metadata import PackageNotFoundError, version

import sklearn
import torch

from skl_softmax._version import __version__

# What is not in scikit-learn's list and may matter.
PACKAGES = ("torch", "skops", "skl2onnx", "safetensors", "dask", "distributed", "polars")


def show_versions() -> None:
    """Print versions for a bug report: of this package, torch and what `sklearn.show_versions` knows.

    That is the system, Python, the dependencies of scikit-learn, and the libraries for linear algebra and threads that
    are loaded, with their numbers of threads.

    Examples
    --------
    >>> import skl_softmax
    >>> skl_softmax.show_versions()
    skl_softmax: ...
          torch: ...
    """
    print(f"skl_softmax: {__version__}")
    for name in PACKAGES:
        print(f"{name:>11}: {_version(name)}")
    print(f"torch threads: {torch.get_num_threads()}, CUDA: {torch.version.cuda}")
    sklearn.show_versions()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
