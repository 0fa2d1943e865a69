"""What each transform drew, as a few numbers of fixed width, and back.

One table for all of them: a transform that is not in it cannot stand before a stored target. What comes back makes the
same pixels, bit for bit: whole numbers as they are, floats as float64 or as an index into the transform's own table.
A version is raised when the same numbers come to mean other pixels; the fields themselves are in a store's header.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.augment import AutoAugment, ColorJitter, RandAugment, RandomErasing, TimmAutoAugment, signed_step
from ..data.mix import Cutmix, Mixup, OpSampler, build_mix
from ..data.pixels import CropImage, DecodeImage, NormalizeImage, ResizeImage, ToCHWImage
from ..data.transforms import PadRandCrop, Padv2, RandCropImage, RandCropImageV2, RandFlipImage, build_transforms
from ..errors import ConfigError, DataError
from ..registry import one_key
from ..structs import Drawn

NO_PARTNER = 2**32 - 1
_BOX = (("left", "<u2"), ("top", "<u2"), ("width", "<u2"), ("height", "<u2"))


@dataclass(frozen=True)
class Fields:
    """The numbers of one transform. dtype: (name, type) of each. encode, decode: what it drew <-> a tuple of them."""

    dtype: tuple[tuple[str, Any], ...]
    encode: Callable[[Any], tuple]
    decode: Callable[[tuple], Any]


def _crop(t: RandCropImage) -> Fields:
    if len(t.filters) == 1:
        return Fields(_BOX, lambda params: params[:4], lambda v: (*v, t.filters[0]))
    return Fields((*_BOX, ("filter", "u1")), lambda params: (*params[:4], t.filters.index(params[4])),
                  lambda v: (*v[:4], t.filters[v[4]]))


def _corner(_: RandCropImageV2) -> Fields:
    return Fields(_BOX[:2], tuple, tuple)


def _flip(_: RandFlipImage) -> Fields:
    return Fields((("flipped", "u1"),), lambda params: (int(params),), lambda v: bool(v[0]))


class _Coin:
    """Falls on one side."""

    def __init__(self, value: float):
        self.random = lambda: value


def _signs(name: str, magnitude: float) -> list[tuple]:
    return [signed_step(_Coin(side), name, magnitude) for side in (0.0, 0.75)]


def _rand_augment(t: RandAugment) -> Fields:
    return _from_table([step for name, value in t.magnitudes.items() for step in _signs(name, value)], t.num_layers)


def _auto_augment(t: AutoAugment) -> Fields:
    return _from_table([step for pair in t.PAIRS for _, name, level in pair
                        for step in _signs(name, t.level_magnitude(name, level))], 2)


def _from_table(steps: Sequence[tuple], most: int) -> Fields:
    """Up to `most` steps, each its number in the table of all steps that can be drawn, counted from 1; 0 for none."""
    table = list(dict.fromkeys(steps))

    def encode(params):
        return tuple(table.index(step) + 1 for step in params) + (0,) * (most - len(params))

    return Fields(tuple((f"step_{i}", "u1") for i in range(most)), encode,
                  lambda v: tuple(table[number - 1] for number in v if number))


def _timm(t: TimmAutoAugment) -> Fields:
    kinds = [(name, resample) for name in t.NAMES for resample in t.filters]
    return _steps(t.layers, lambda step: (kinds.index((step[0], step[2])) + 1, step[1]),
                  lambda kind, value: (kinds[kind - 1][0], value, kinds[kind - 1][1]))


def _jitter(t: ColorJitter) -> Fields:
    names = list(t.ranges)
    return _steps(len(names), lambda step: (names.index(step[0]) + 1, step[1]),
                  lambda kind, value: (names[kind - 1], value))


def _steps(most: int, encode: Callable, decode: Callable) -> Fields:
    """Up to `most` steps of (kind, counted from 1, and a float64); kind 0 for none."""

    def encode_all(params):
        found = [number for step in params for number in encode(step)]
        return tuple(found) + (0, 0.0) * (most - len(params))

    dtype = tuple(field for i in range(most) for field in ((f"kind_{i}", "u1"), (f"value_{i}", "<f8")))
    return Fields(dtype, encode_all,
                  lambda v: tuple(decode(kind, value) for kind, value in zip(v[::2], v[1::2]) if kind))


def _erase(_: RandomErasing) -> Fields:
    """A rectangle without width and one without a rectangle leave the same pixels."""
    return Fields((*_BOX, ("seed", "<u4")), lambda params: tuple(params or (0,) * 5),
                  lambda v: tuple(v) if v[2] and v[3] else None)


def _mixup(_: Mixup) -> Fields:
    return Fields((("share", "<f8"),), lambda params: (params,), lambda v: v[0])


def _cutmix(_: Cutmix) -> Fields:
    return Fields((("left", "<u2"), ("top", "<u2"), ("right", "<u2"), ("bottom", "<u2")), tuple, tuple)


def _op_sampler(t: OpSampler) -> Fields:
    """Which operator, and the fields of each of them; those of the others are 0."""
    parts = [mix_fields(operator)[0] for operator in t.operators]
    dtype = (("operator", "u1"), *((f"{i}_{name}", kind) for i, part in enumerate(parts) for name, kind in part.dtype))

    def encode(params):
        chosen, drawn = params
        return (chosen, *(value for i, part in enumerate(parts)
                          for value in (part.encode(drawn) if i == chosen else (0,) * len(part.dtype))))

    def decode(values):
        chosen = values[0]
        start = 1 + sum(len(part.dtype) for part in parts[:chosen])
        return chosen, parts[chosen].decode(values[start:start + len(parts[chosen].dtype)])

    return Fields(dtype, encode, decode)


# Of each transform and mix: how its fields are made (None: it draws nothing), and the version of what they mean.
_TRANSFORMS: Mapping[type, tuple[Callable[[Any], Fields] | None, int]] = {
    DecodeImage: (None, 1), ResizeImage: (None, 1), CropImage: (None, 1), Padv2: (None, 1), NormalizeImage: (None, 1),
    ToCHWImage: (None, 1), RandCropImage: (_crop, 1), RandCropImageV2: (_corner, 1), PadRandCrop: (_corner, 1),
    RandFlipImage: (_flip, 1), RandAugment: (_rand_augment, 1), AutoAugment: (_auto_augment, 1),
    TimmAutoAugment: (_timm, 1), ColorJitter: (_jitter, 1), RandomErasing: (_erase, 1),
}
_MIXES: Mapping[type, tuple[Callable[[Any], Fields], int]] = {Mixup: (_mixup, 1), Cutmix: (_cutmix, 1),
                                                               OpSampler: (_op_sampler, 1)}


def mix_fields(mix: Mixup | Cutmix | OpSampler) -> tuple[Fields, int]:
    """(fields, version) of a mix. KeyError for one that the table does not have."""
    make, version = _MIXES[type(mix)]
    return make(mix), version


class DrawnCodec:
    """Drawn <-> numbers, for one transform list.

    transform_ops, batch_transform_ops: as in a config. dtype: structured, of one view. versions: of each transform and
    then of the mix. ConfigError names a transform that cannot be recorded.
    """

    def __init__(self, transform_ops: Sequence[Mapping[str, Any]],
                 batch_transform_ops: Sequence[Mapping[str, Any]] = (), where: str = "DataLoader.Train"):
        transforms = build_transforms(transform_ops, f"{where}.transform_ops").transforms
        self._draws = [hasattr(transform, "draw") for transform in transforms]
        self._fields: list[Fields | None] = []
        self.versions: list[int] = []
        view: list[tuple] = [("height", "<u2"), ("width", "<u2")]
        for i, transform in enumerate(transforms):
            if type(transform) not in _TRANSFORMS:
                _refuse(f"{where}.transform_ops.{i}", transform_ops[i], [t.__name__ for t in _TRANSFORMS])
            make, version = _TRANSFORMS[type(transform)]
            fields = make(transform) if make else None
            self.versions.append(version)
            self._fields.append(fields if fields and fields.dtype else None)
            if self._fields[-1]:
                view.append((f"{i}_{type(transform).__name__}", list(fields.dtype)))
        self.dtype = np.dtype(view)
        mix = build_mix(batch_transform_ops, f"{where}.batch_transform_ops")
        self._mix: Fields | None = None
        if mix is not None:
            if type(mix) not in _MIXES:
                _refuse(f"{where}.batch_transform_ops.0", batch_transform_ops[0], [t.__name__ for t in _MIXES])
            self._mix, version = mix_fields(mix)
            self.versions.append(version)
            self.dtype = np.dtype([*view, ("partner", "<u4"), ("partner_view", view), ("mix", list(self._mix.dtype))])
        self._limits = list(_limits(self.dtype))

    def encode(self, drawn: Drawn) -> tuple:
        """Nested tuple that fits `dtype`. DataError when a number does not fit its field."""
        values = self._encode_view(drawn.size, drawn.transforms)
        if self._mix is not None:
            mixed = drawn.partner >= 0
            values = (*values, drawn.partner if mixed else NO_PARTNER,
                      self._encode_view(drawn.partner_size, drawn.partner_transforms) if mixed else self._nothing(),
                      self._mix.encode(drawn.mix) if mixed else (0,) * len(self._mix.dtype))
        for value, (name, largest) in zip(_flat(values), self._limits, strict=True):
            if largest is not None and not 0 <= value <= largest:
                raise DataError(f"{name} is {value}, but a stored view has room for 0 to {largest:,}; put a "
                                "ResizeImage before what draws, or leave so large an image out of the list")
        return values

    def decode(self, values: tuple) -> Drawn | None:
        """What `encode` was given; None for an image of height 0, which is how an unreadable one is stored."""
        if not values[0]:
            return None
        own = 2 + sum(fields is not None for fields in self._fields)
        size, transforms = self._decode_view(values[:own])
        if self._mix is None or values[own] == NO_PARTNER:
            return Drawn(transforms, size)
        partner_size, partner_transforms = self._decode_view(values[own + 1])
        return Drawn(transforms, size, values[own], partner_transforms, partner_size, self._mix.decode(values[own + 2]))

    def _encode_view(self, size: tuple[int, int], transforms: Sequence[Any]) -> tuple:
        pairs = zip(self._fields, transforms, strict=True)
        return (*size, *(fields.encode(params) for fields, params in pairs if fields))

    def _decode_view(self, values: tuple) -> tuple[tuple[int, int], tuple]:
        found = iter(values[2:])
        transforms = tuple(fields.decode(next(found)) if fields else () if draws else None
                           for fields, draws in zip(self._fields, self._draws))
        return (values[0], values[1]), transforms

    def _nothing(self) -> tuple:
        return (0, 0, *((0,) * len(fields.dtype) for fields in self._fields if fields))


def _refuse(where: str, entry: Mapping[str, Any], known: Sequence[str]) -> None:
    raise ConfigError(f"{where}: what {one_key(entry, where)[0]} draws cannot be recorded, so it cannot stand before "
                      f"stored targets; known: {', '.join(sorted(known))}")


def _flat(values: tuple):
    for value in values:
        if isinstance(value, tuple):
            yield from _flat(value)
        else:
            yield value


def _limits(dtype: np.dtype, prefix: str = ""):
    """(name, largest whole number or None) of each number, in order."""
    for name in dtype.names:
        field = dtype[name]
        if field.names:
            yield from _limits(field, f"{prefix}{name}.")
        else:
            yield prefix + name, int(np.iinfo(field).max) if field.kind == "u" else None
