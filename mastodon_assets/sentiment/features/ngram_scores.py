"""The n-gram model in numpy: from cleaned texts and their tokens to probabilities, many at a time.

What belongs here: the terms of `pipeline.term_stages`, Spark's hash of them, and the regressions on
their buckets. Spark computes the same with one object per term; this is several times as fast.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

# Texts at a time: their terms fit into a processor's cache.
_TEXTS = 1024
# Of Spark's functions `hash` and `HashingTF`.
_SEED = np.full(1, 42, np.uint32)
# The numbers that `pipeline.term_stages` adds for a kind of term.
_APART = np.full(1, 1, np.uint32)
_CHARACTERS = np.full(1, 2, np.uint32)
# A row and a bucket together are one number of 32 bits.
_NUMBERS = 2**32

Hashes = NDArray[np.uint32]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Head:
    """A logistic regression over the buckets, and over the raw prediction of the one before.

    Attributes:
        buckets: number of buckets.
        coefficients: one row per class, or one row for two classes; the numbers behind those of
            the buckets belong to the raw prediction of the head before.
        intercepts: one number per row.
    """

    buckets: int
    coefficients: NDArray[np.float64]
    intercepts: NDArray[np.float64]

    def raw(
        self, rows: Places, hashed: Hashes, texts: int, before: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return one number per class and text, shape (classes, texts).

        Args:
            rows: the text of each term.
            hashed: the hash of each term.
            texts: number of texts; each has a term.
            before: the result of the head before, shape (0, texts) for the first.
        """
        bucket = np.mod(hashed.view(np.int32), np.int32(self.buckets))
        first = np.arange(texts + 1) * self.buckets
        keys = (first[rows] + bucket).astype(np.uint32)
        keys.sort()
        keys = keys[np.append(True, keys[1:] != keys[:-1])]
        begins = np.searchsorted(keys, first[:-1].astype(np.uint32))
        counts = np.diff(begins, append=len(keys))
        places = keys - np.repeat(first[:-1], counts).astype(np.uint32)
        sums = np.stack(
            [np.add.reduceat(of_class[places], begins) for of_class in self.coefficients]
        )
        margins = (
            sums / np.sqrt(counts)
            + self.coefficients[:, self.buckets :] @ before
            + self.intercepts[:, np.newaxis]
        )
        return np.vstack([-margins, margins]) if len(margins) == 1 else margins


def probabilities(
    cleaned: pa.StringArray, tokens: pa.ListArray, lengths: Sequence[int], heads: Sequence[Head]
) -> NDArray[np.float64]:
    """Return the probability of each class, shape (texts, classes).

    Args:
        cleaned: the texts' column of that name, without nulls.
        tokens: the texts' column of that name.
        lengths: lengths of the character n-grams.
        heads: the regressions, the last one's probabilities are returned.
    """
    at_once = min(_TEXTS, *(_NUMBERS // head.buckets for head in heads))
    found = [
        _probabilities(cleaned.slice(start, at_once), tokens.slice(start, at_once), lengths, heads)
        for start in range(0, len(cleaned), at_once)
    ]
    return np.vstack([np.empty((0, max(2, len(heads[-1].intercepts)))), *found])


def _probabilities(
    cleaned: pa.StringArray, tokens: pa.ListArray, lengths: Sequence[int], heads: Sequence[Head]
) -> NDArray[np.float64]:
    rows, hashes = zip(*_word_ngrams(tokens), *_character_ngrams(cleaned, lengths), strict=True)
    all_rows, terms = np.concatenate(rows), np.concatenate(hashes)
    # HashingTF hashes each term, a number, once more.
    hashed = _hash_number(terms, _SEED)
    raw = np.empty((0, len(cleaned)))
    for head in heads:
        raw = head.raw(all_rows, hashed, len(cleaned), raw)
    if len(raw) == 2:
        negative = 1 / (1 + np.exp(raw[1]))
        return np.stack([negative, 1 - negative], axis=1)
    exponentials: NDArray[np.float64] = np.exp(raw - raw.max(axis=0))
    shares: NDArray[np.float64] = exponentials / exponentials.sum(axis=0)
    return shares.T


def _word_ngrams(tokens: pa.ListArray) -> Iterator[tuple[Places, Hashes]]:
    """Yield rows and hashes of tokens, of pairs, and of pairs with one token between them."""
    counts = tokens.value_lengths().to_numpy()
    rows = np.repeat(np.arange(len(tokens)), counts)
    text, starts, ends = _bytes_of(tokens.flatten())
    alone = text.hashes(starts, ends - starts, _SEED)
    yield rows, alone
    for distance, seeds in ((1, alone), (2, _hash_number(_APART, alone))):
        # A hash ignores null, which is what comes after the last token.
        hashes = seeds.copy()
        has_other = np.flatnonzero(rows[distance:] == rows[:-distance])
        other = has_other + distance
        hashes[has_other] = text.hashes(
            starts[other], ends[other] - starts[other], seeds[has_other]
        )
        yield rows, hashes


def _character_ngrams(
    cleaned: pa.StringArray, lengths: Sequence[int]
) -> Iterator[tuple[Places, Hashes]]:
    text, row_starts, row_ends = _bytes_of(cleaned)
    starts = np.flatnonzero((text.data & 0xC0) != 0x80)
    # The place of a character that is some characters further on, or of the end.
    begins = np.append(starts, len(text.data))
    first, last = np.searchsorted(starts, row_starts), np.searchsorted(starts, row_ends)
    rows = np.repeat(np.arange(len(cleaned)), last - first)
    left = np.repeat(last, last - first) - np.arange(len(starts))
    for length in lengths:
        place = np.flatnonzero(left >= length)
        start, end = starts[place], begins[place + length]
        hashes = text.hashes(start, end - start, _SEED)
        yield rows[place], _hash_number(_CHARACTERS, hashes)
        # Java also begins in the middle of a pair of surrogates, and writes the rest of it as `?`.
        is_pair = text.data[start] >= 0xF0
        if is_pair.any():
            halves = [
                b"?" + text.data[a + 4 : b].tobytes()
                for a, b in zip(start[is_pair], end[is_pair], strict=True)
            ]
            half, half_starts, half_ends = _bytes_of(pa.array(halves, pa.binary()))
            hashes = half.hashes(half_starts, half_ends - half_starts, _SEED)
            yield rows[place[is_pair]], _hash_number(_CHARACTERS, hashes)


class _Bytes:
    """Bytes of many texts, to hash parts of them."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self.data = data
        # At each place the number that begins there, and the byte as a signed number.
        windows = sliding_window_view(np.append(data, np.zeros(3, np.uint8)), 4)
        self._numbers = np.ascontiguousarray(windows).view("<u4").ravel()
        self._signed = data.view(np.int8).astype(np.int32).view(np.uint32)

    def hashes(self, starts: Places, lengths: Places, seeds: Hashes) -> Hashes:
        """Return Spark's Murmur3 of each part: each byte of its tail is mixed like a number."""
        found = np.empty(len(starts), np.uint32)
        seeds = np.broadcast_to(seeds, len(starts))
        for length in np.flatnonzero(np.bincount(lengths)).tolist():
            which = np.flatnonzero(lengths == length)
            start, state = starts[which], seeds[which]
            tail = length - length % 4
            for place in range(0, tail, 4):
                state = _mixed(state, self._numbers[start + place])
            for place in range(tail, length):
                state = _mixed(state, self._signed[start + place])
            found[which] = _finished(state, length)
        return found


def _bytes_of(texts: pa.Array) -> tuple[_Bytes, Places, Places]:
    """Return the bytes of an array of strings, and where each begins and ends."""
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, np.int32, len(texts) + 1, 4 * texts.offset).astype(np.int64)
    first, last = int(ends[0]), int(ends[-1])
    content = np.frombuffer(data or b"", np.uint8)[first:last]
    ends = ends - first
    return _Bytes(content), ends[:-1], ends[1:]


def _hash_number(number: Hashes, seeds: Hashes) -> Hashes:
    return _finished(_mixed(seeds, number), 4)


def _mixed(state: Hashes, number: Hashes) -> Hashes:
    number = _rotated(number * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)
    return _rotated(number ^ state, 13) * np.uint32(5) + np.uint32(0xE6546B64)


def _rotated(number: Hashes, bits: int) -> Hashes:
    high = np.left_shift(number, np.uint32(bits))
    return np.bitwise_or(high, np.right_shift(number, np.uint32(32 - bits)))


def _finished(state: Hashes, length: int) -> Hashes:
    state = state ^ np.uint32(length)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        state = (state ^ np.right_shift(state, np.uint32(shift))) * np.uint32(factor)
    return state ^ np.right_shift(state, np.uint32(16))
