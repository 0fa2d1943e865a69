"""One view as bytes: a check, the teacher's answer, what was drawn. Little endian, packed, of fixed width."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..structs import Drawn, SparseTargets
from .answers import AnswerCodec
from .drawn import DrawnCodec

NOTES = {
    "check": "16 bits of a sum over all other bytes and the record's address, row * views + view; a record in the "
             "wrong place fails it too",
    "classes": "the k likeliest classes, likeliest first, `id_bits` bits each, least significant bit first",
    "depths": "k - 1 classes and then the mean of the others (nothing, where k is all): nats below the likeliest "
              "class, floor * (code / (2^bits - 1))^2, `bits` bits each; exp(-depth) of each class, and of the mean "
              "times C - k, divided by their sum, are the probabilities",
    "view": "height and width of the decoded image (0: it could not be read), what each transform drew, and with a mix "
            f"the partner's sample id ({2**32 - 1}: none), its view and what the mix drew",
}


class Layout:
    """The record of one store. dtype: structured, with `itemsize` bytes per view."""

    def __init__(self, answers: AnswerCodec, drawn: DrawnCodec):
        self._answers, self._drawn = answers, drawn
        fields = [(name, *_type(answers.dtype[name])) for name in answers.dtype.names]
        self.dtype = np.dtype([("check", "<u2"), *fields, ("view", drawn.dtype)])
        self._factors = _factors(self.dtype.itemsize - 1)

    def encode(self, answers: np.ndarray, drawn: Sequence[Drawn], addresses: np.ndarray) -> np.ndarray:
        """Records [N] of answers (AnswerCodec.encode) and draws that belong at int64 addresses."""
        records = np.zeros(len(drawn), self.dtype)
        for name in answers.dtype.names:
            records[name] = answers[name]
        records["view"] = np.array([self._drawn.encode(one) for one in drawn], self._drawn.dtype)
        return self.seal(records, addresses)

    def seal(self, records: np.ndarray, addresses: np.ndarray) -> np.ndarray:
        """The same array, its `check` set."""
        records["check"] = self.checks(records, addresses)
        return records

    def checks(self, records: np.ndarray, addresses: np.ndarray) -> np.ndarray:
        """uint16 [N] that `check` must be. A change of one byte stays unseen once in 65,536 times."""
        content = np.ascontiguousarray(records).view(np.uint8).reshape(-1, self.dtype.itemsize)[:, 2:]
        total = content.astype(np.uint64) @ self._factors[1:]
        total += (addresses.astype(np.uint64) + np.uint64(1)) * self._factors[0]
        return (total >> np.uint64(48)).astype(np.uint16)

    def targets(self, records: np.ndarray) -> SparseTargets:
        return self._answers.decode(records)

    def drawn(self, record: Any) -> Drawn | None:
        """Of one record; None where its image could not be read."""
        return self._drawn.decode(record["view"].item())


def _type(dtype: np.dtype) -> tuple:
    return (dtype.subdtype[0].str, dtype.subdtype[1]) if dtype.subdtype else (dtype.str,)


def _factors(count: int) -> np.ndarray:
    """Odd uint64 [count]: the first 8 bytes of BLAKE2b of each index as text, little endian, lowest bit set."""
    digests = b"".join(hashlib.blake2b(str(i).encode(), digest_size=8).digest() for i in range(count))
    return np.frombuffer(digests, "<u8") | np.uint64(1)
