"""A device that is not there: tensors that say they are on "meta", are computed on the CPU, and mix with nothing.

`pretended_device` is active in a with block. There, tensors made on "meta" or moved there hold their values, and an
operation on them and on a CPU tensor of more than one element is an error, as it is between real devices.
"""

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

DEVICE = torch.device("meta")
# Operations that real accelerators allow between devices.
CROSSING = {
    torch.ops.aten._to_copy.default,
    torch.ops.aten.copy_.default,
    torch.ops.aten.index.Tensor,
}


class Pretended(torch.Tensor):
    """A tensor that says it is on the device; its values are on the CPU."""

    @staticmethod
    def __new__(cls, values):
        return torch.Tensor._make_wrapper_subclass(
            cls, values.shape, strides=values.stride(), dtype=values.dtype, device=DEVICE, requires_grad=False
        )

    def __init__(self, values):
        self.values_on_cpu = values

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return dispatch(operation, args, kwargs or {}, float64=True)

    def tolist(self):  # which torch refuses to subclasses
        return self.values_on_cpu.tolist()

    def __repr__(self):
        return f"Pretended({self.values_on_cpu})"


@contextmanager
def pretended_device(float64=True):
    """In this block the device is there. ``float64`` says whether it knows that type."""
    with NumbersMoved(), Dispatching(float64) as mode:
        yield mode


class NumbersMoved(TorchFunctionMode):
    """`torch.tensor` makes tensors without dispatching, so that numbers are made on the CPU and moved."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device, generator = kwargs.get("device"), kwargs.get("generator")
        if generator is not None and device is not None and torch.device(device) != generator.device:
            raise RuntimeError(f"Expected a {device} generator but found {generator.device}")  # as of real devices
        if function is torch.tensor and device is not None and torch.device(device) == DEVICE:
            return function(*args, **(kwargs | {"device": "cpu"})).to(DEVICE)
        return function(*args, **kwargs)


class Dispatching(TorchDispatchMode):
    """Sees every operation."""

    def __init__(self, float64):
        super().__init__()
        self.float64 = float64
        self.n_copied = 0  # elements that came to the CPU

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return dispatch(operation, args, kwargs or {}, self.float64, self)


def dispatch(operation, args, kwargs, float64, mode=None):
    flat = [a for a in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
    pretended = [a for a in flat if isinstance(a, Pretended)]
    target = kwargs.get("device")
    if pretended and operation not in CROSSING:
        strangers = [a for a in flat if not isinstance(a, Pretended) and a.ndim > 0]
        assert not strangers, f"{operation} mixes devices: shapes {[tuple(a.shape) for a in flat]}"
    if target is not None and torch.device(target) == DEVICE:
        kwargs = kwargs | {"device": "cpu"}
        there = True
    elif target is not None:
        there = False
        if mode is not None and pretended:
            mode.n_copied += pretended[0].numel()
    elif operation is torch.ops.aten.copy_.default:
        there = isinstance(args[0], Pretended)
    elif operation is torch.ops.aten._local_scalar_dense.default:
        there = False
    else:
        there = bool(pretended)
    inner = tree_map(lambda a: a.values_on_cpu if isinstance(a, Pretended) else a, (args, kwargs))
    result = operation(*inner[0], **inner[1])
    if not there:
        return result
    by_values = {id(a.values_on_cpu): a for a in pretended}  # results of operations in place stay themselves

    def outer(value):
        if not isinstance(value, torch.Tensor):
            return value
        assert float64 or value.dtype != torch.float64, f"{operation} makes float64"
        return by_values[id(value)] if id(value) in by_values else Pretended(value)

    return tree_map(outer, result)
