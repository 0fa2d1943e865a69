"""A live network -> the program files that Paddle Inference loads."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import paddle

from .build import logits_of


class _LogitsOnly(paddle.nn.Layer):
    def __init__(self, network: paddle.nn.Layer):
        super().__init__()
        self.network = network

    def forward(self, images):
        return logits_of(self.network(images))


def can_write_pir() -> bool:
    """True when this Paddle writes `.json` programs (3.x); 2.6 writes only `.pdmodel`."""
    return hasattr(paddle, "pir_utils") and hasattr(paddle.pir_utils, "OldIrGuard")


def save_program(network: paddle.nn.Layer, prefix: str, image_shape: Sequence[int], legacy: bool = False,
                 head: paddle.nn.Layer | None = None) -> None:
    """Write `prefix.json` (or `prefix.pdmodel`) and `prefix.pdiparams` for input float32 [N, *image_shape].

    The program is the network in evaluation mode, returning logits [N, C], or what `head` makes of them. A copy is
    traced, so the live network keeps its mode, its parameters and its eager forward. legacy: `.pdmodel` on Paddle 3
    too, for Paddle Inference 2.x, Lite and other converters.
    """
    layers = [_LogitsOnly(copy.deepcopy(network))] + ([head] if head is not None else [])
    traced = paddle.nn.Sequential(*layers) if head is not None else layers[0]
    traced.eval()
    spec = [paddle.static.InputSpec([None, *image_shape], "float32", name="x")]
    guard = paddle.pir_utils.OldIrGuard() if legacy and can_write_pir() else nullcontext()
    with guard, _forgetting_a_failed_trace():
        paddle.jit.save(paddle.jit.to_static(traced, input_spec=spec, full_graph=True), prefix)


@contextmanager
def _forgetting_a_failed_trace() -> Iterator[None]:
    """When a trace fails, drop what Paddle recorded of it.

    Paddle (2.6.2, 3.3.1) keeps a traced program's parameters under its id() and takes them out only when the trace
    succeeds. A later program that happens to get the same id would then be saved with the failed one's parameters, or,
    if those are gone, not at all (KeyError in jit.save).
    """
    before = [set(record) for record in _records_of_traces()]
    try:
        yield
    except BaseException:
        for record, known in zip(_records_of_traces(), before):
            for program in set(record) - known:
                del record[program]
        raise


def _records_of_traces() -> list[dict]:
    """Paddle's own dictionaries, id of a program -> what was recorded of it."""
    from paddle.jit.dy2static.program_translator import ProgramTranslator

    translator = ProgramTranslator.get_instance()
    records = [translator._params_recorder.params_dict, translator._inplace_map.params_dict]
    if can_write_pir():
        from paddle.jit.dy2static.parameter_recorder import _global_inplace_map, _global_parameter_recorder

        records += [_global_parameter_recorder.params_dict, _global_parameter_recorder.tensor2value,
                    _global_inplace_map.params_dict]
    return records
