"""Paddle 3.3 can still write Paddle 2's `.pdmodel`, but fifty of its functions no longer know how to enter themselves
into such a program (paddle.multiply, matmul, sigmoid, gelu, ...). Here they learn it again, while one is traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import paddle

UNARY = ("abs", "ceil", "cos", "exp", "floor", "log", "round", "rsqrt", "sigmoid", "sign", "sin", "sqrt", "tanh")
BINARY = {"multiply": "elementwise_mul", "maximum": "elementwise_max", "minimum": "elementwise_min"}


def _append(op: str, attributes: dict[str, Any], **inputs) -> Any:
    """Enter one operator of Paddle 2's program format; its output variable."""
    from paddle.base.layer_helper import LayerHelper

    helper = LayerHelper(op)
    out = helper.create_variable_for_type_inference(next(iter(inputs.values())).dtype)
    helper.append_op(type=op, inputs={k: [v] for k, v in inputs.items()}, outputs={"Out": [out]}, attrs=attributes)
    return out


def _matmul(x, y, transpose_x=False, transpose_y=False, name=None):
    return _append("matmul_v2", {"trans_x": transpose_x, "trans_y": transpose_y}, X=x, Y=y)


def _bmm(x, y, name=None):
    return _append("bmm", {}, X=x, Y=y)


def _gelu(x, approximate=False, name=None):
    return _append("gelu", {"approximate": approximate in (True, "tanh")}, X=x)


def _softplus(x, beta=1, threshold=20, name=None):
    return _append("softplus", {"beta": float(beta), "threshold": float(threshold)}, X=x)


def _sum(x, axis=None, dtype=None, keepdim=False, name=None):
    every = axis is None or axis == []
    dims = [0] if every else list(axis) if isinstance(axis, (list, tuple)) else [axis]
    out = _append("reduce_sum", {"dim": dims, "keep_dim": keepdim, "reduce_all": every}, X=x)
    return out if dtype is None else paddle.cast(out, dtype)


def _roll(x, shifts, axis=None, name=None):
    def many(value):
        return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]

    return _append("roll", {"shifts": many(shifts), "axis": many(axis)}, X=x)


def _unary(op: str) -> Callable:
    return lambda x, name=None: _append(op, {}, X=x)


def _binary(op: str) -> Callable:
    return lambda x, y, name=None: _append(op, {"axis": -1}, X=x, Y=y)


ENTRIES: dict[str, Callable] = {
    **{op: _unary(op) for op in UNARY}, **{name: _binary(op) for name, op in BINARY.items()},
    "matmul": _matmul, "bmm": _bmm, "gelu": _gelu, "softplus": _softplus, "sum": _sum, "roll": _roll,
}


@contextmanager
def legacy_ops() -> Iterator[None]:
    """While it lasts, ENTRIES serve the variables of a legacy program; all other calls go where they always went."""
    functions, variable = paddle._C_ops, paddle.static.Variable
    own = {name: getattr(functions, name) for name in ENTRIES if hasattr(functions, name)}
    own_methods = {name: vars(variable)[name] for name in own if name in vars(variable)}

    def either(name: str) -> Callable:
        def call(*args, **kwargs):
            first = args[0] if args else kwargs.get("x")
            return (ENTRIES if isinstance(first, variable) else own)[name](*args, **kwargs)

        return call

    try:
        for name in own:
            setattr(functions, name, either(name))
        for name in own_methods:
            setattr(variable, name, ENTRIES[name])
        yield
    finally:
        for name, function in own.items():
            setattr(functions, name, function)
        for name, method in own_methods.items():
            setattr(variable, name, method)
