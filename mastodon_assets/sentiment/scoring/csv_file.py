"""CSV scoring: the rows of a CSV file, labelled by the champion.

What belongs here: reading and writing such files, in chunks. What a label means: `score`.
"""

import csv
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from pyspark.sql import SparkSession

from mastodon_assets.errors import PlatformError
from mastodon_assets.files import atomic_file
from mastodon_assets.sentiment.models.store import LoadedModel
from mastodon_assets.sentiment.scoring.score import MAX_SCORED, score

STANDARD = "-"
RESULT_COLUMNS = ("prob_pos", "label_bin", "label_str", "reason")
_ROWS_PER_CHUNK = 20_000
# Bounds of memory, in characters: a chunk ends after this many, and a file with a longer field has
# an open quote, or is no file of posts.
_CHARACTERS_PER_CHUNK = 4_000_000
_MAX_FIELD = 16_000_000

Report = Callable[[str], None]
Row = list[str]


class TextFileError(PlatformError):
    """The file is missing, is no CSV, or has no columns text and lang."""


def score_file(
    spark: SparkSession,
    model: LoadedModel,
    source: str,
    target: str,
    *,
    low: float,
    high: float,
    report: Report,
) -> Counter[str]:
    """Score each row of the CSV file `source` into `target`; return rows by label or reason.

    Args:
        spark: the session that scores.
        model: the model.
        source: a path, or `-` for standard input. UTF-8 with or without BOM, a header with text and
            lang, quoted as in RFC 4180.
        target: a path, or `-` for standard output. Gets the columns of `source` and
            `RESULT_COLUMNS`, and replaces columns of these names; rows in the same order. A file
            gets its name when it is complete.
        low: see `score`.
        high: see `score`.
        report: gets one line per chunk.

    Raises:
        TextFileError: the source is missing or in another format, or the target is not writable.
    """
    outcomes: Counter[str] = Counter()
    with _reading(source) as (header, rows), _writing(target) as file:
        kept = [place for place, name in enumerate(header) if name not in RESULT_COLUMNS]
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*(header[place] for place in kept), *RESULT_COLUMNS])
        for chunk in _chunks(rows):
            results = _score_chunk(spark, model, header, chunk, low=low, high=high)
            for row, result in zip(chunk, results, strict=True):
                writer.writerow([*(row[place] for place in kept), *result])
                outcomes[str(result[2] or result[3])] += 1
            report(f"scored {outcomes.total():,} rows")
    return outcomes


def _score_chunk(
    spark: SparkSession,
    model: LoadedModel,
    header: Row,
    rows: list[Row],
    *,
    low: float,
    high: float,
) -> list[tuple[object, ...]]:
    texts = pa.table(
        {
            "place": range(len(rows)),
            "lang": [row[header.index("lang")] for row in rows],
            # The rest of a text would only cost memory.
            "text": [row[header.index("text")][:MAX_SCORED] for row in rows],
        }
    )
    scored = score(spark.createDataFrame(texts), model, low=low, high=high).toArrow()
    columns = scored.sort_by("place").select(RESULT_COLUMNS).to_pydict().values()
    return list(zip(*columns, strict=True))


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        characters += sum(map(len, row))
        if len(chunk) >= _ROWS_PER_CHUNK or characters >= _CHARACTERS_PER_CHUNK:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


@contextmanager
def _reading(source: str) -> Iterator[tuple[Row, Iterator[Row]]]:
    """Open the source and yield its header and an iterator of its rows."""
    name = "standard input" if source == STANDARD else source
    # Python's own limit of 131,072 refuses a long text.
    previous_limit = csv.field_size_limit(_MAX_FIELD)
    try:
        with _opened(source) as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            _check_header(name, header)
            yield header, _checked(name, header, reader)
    except csv.Error as error:
        raise TextFileError(f"{name}, line {reader.line_num}: {error}") from error
    except UnicodeDecodeError as error:
        raise TextFileError(f"{name} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    finally:
        csv.field_size_limit(previous_limit)


def _opened(source: str) -> IO[str]:
    # utf-8-sig: spreadsheets begin their files with a byte order mark.
    place = sys.stdin.fileno() if source == STANDARD else source
    try:
        return open(place, encoding="utf-8-sig", newline="", closefd=source != STANDARD)
    except OSError as error:
        raise TextFileError(f"cannot read {source}: {error.strerror}") from error


def _check_header(name: str, header: Row) -> None:
    missing = [column for column in ("text", "lang") if column not in header]
    if missing:
        raise TextFileError(
            f"{name}: the first line must have the columns text and lang; missing:"
            f" {', '.join(missing)}"
        )
    if repeated := [column for column, count in Counter(header).items() if count > 1]:
        raise TextFileError(f"{name}: two columns are named {repeated[0]!r}")


def _checked(name: str, header: Row, reader: Any) -> Iterator[Row]:
    for row in reader:
        if not row:
            continue
        if len(row) != len(header):
            raise TextFileError(
                f"{name}, line {reader.line_num}: {len(row)} columns instead of {len(header)}"
            )
        yield row


@contextmanager
def _writing(target: str) -> Iterator[IO[str]]:
    """Yield a file that gets its name when all is written, or standard output."""
    if target == STANDARD:
        yield sys.stdout
        return
    try:
        with atomic_file(Path(target), mode=None) as file:
            yield file
    except OSError as error:
        raise TextFileError(f"cannot write {target}: {error.strerror}") from error
