"""Where computation takes place."""

from contextlib import AbstractContextManager, ExitStack, nullcontext

import torch

CPU = torch.device("cpu")
# Kinds of devices on which torch may have been told to compute in half precision.
AUTOCAST = "cpu", "cuda", "mps", "xpu"
# Kinds of devices that have no float64.
WITHOUT_FLOAT64 = frozenset({"mps"})


def find_device(device: str | torch.device | None, given: torch.device) -> torch.device:
    """The device that is meant: the one where X is given if None, an accelerator if there is one for "auto"."""
    if device is None:
        return given
    if device == "auto":
        return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else CPU
    try:
        found = torch.empty(0, device=device)
        found.cpu()  # which "meta" refuses, that computes nothing
        return found.device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = "none" if not torch.accelerator.is_available() else str(torch.accelerator.current_accelerator())
        raise ValueError(
            f"device={device!r} is not there (accelerators that torch sees: {there}). Set device=None, 'cpu' or 'auto'."
        ) from error


def has_float64(device: torch.device) -> bool:
    """Whether the device computes in float64."""
    return device.type not in WITHOUT_FLOAT64


def home_of(device: torch.device) -> torch.device:
    """Where parameters are kept and systems are solved, in float64: on the device if it has that, else on the CPU."""
    return device if has_float64(device) else CPU


def plain_torch() -> AbstractContextManager:
    """In this block, of this thread, torch computes as it does unasked, whatever the caller has set.

    Without gradients, in the types that it is given, and new tensors are made on the CPU.
    """
    kinds, is_elsewhere = list(filter(torch.is_autocast_enabled, AUTOCAST)), torch.empty(0).device != CPU
    if not kinds and not is_elsewhere:
        return torch.no_grad()
    stack = ExitStack()
    stack.enter_context(torch.no_grad())
    for kind in kinds:
        stack.enter_context(torch.autocast(kind, enabled=False))
    if is_elsewhere:
        stack.enter_context(CPU)
    return stack


def making_on(device: torch.device) -> AbstractContextManager:
    """In this block, of this thread, new tensors are made on the device."""
    return nullcontext() if device == CPU else device
