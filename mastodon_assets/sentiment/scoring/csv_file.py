"""A CSV file of texts scored by the champion, row for row.

What belongs here: reading and writing such files, in chunks. What a label means: `score`.
"""

import csv
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from pyspark.sql import SparkSession

from mastodon_assets.errors import PlatformError
from mastodon_assets.files import atomic_file
from mastodon_assets.sentiment.models.store import LoadedModel
from mastodon_assets.sentiment.scoring.score import score

STANDARD = "-"
RESULT_COLUMNS = ("prob_pos", "label_bin", "label_str", "reason")
_ROWS_A_CHUNK = 20_000

Report = Callable[[str], None]
Row = list[str]


class TextFileError(PlatformError):
    """The file of texts is missing, no CSV, or without the columns text and lang."""


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
    """Score each row of the CSV file `source` into `target`; rows by label or reason.

    `source`: UTF-8 with or without BOM, a header with text and lang, RFC 4180's quoting. `target`
    has its columns and `RESULT_COLUMNS`, its rows in its order; columns of these names are
    replaced. `-` is standard input or output. A file appears when it is whole.
    Raises: TextFileError.
    """
    outcomes: Counter[str] = Counter()
    with _reading(source) as (header, rows), _writing(target) as file:
        kept = [place for place, name in enumerate(header) if name not in RESULT_COLUMNS]
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*(header[place] for place in kept), *RESULT_COLUMNS])
        while chunk := list(islice(rows, _ROWS_A_CHUNK)):
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
            "text": [row[header.index("text")] for row in rows],
        }
    )
    scored = score(spark.createDataFrame(texts), model, low=low, high=high).toArrow()
    columns = scored.sort_by("place").select(RESULT_COLUMNS).to_pydict().values()
    return list(zip(*columns, strict=True))


@contextmanager
def _reading(source: str) -> Iterator[tuple[Row, Iterator[Row]]]:
    """The header, and the rows as they are asked for."""
    name = "standard input" if source == STANDARD else source
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
            f"{name}: the first line must name the columns text and lang; missing:"
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
    """A file that takes its name when all is written, or standard output."""
    if target == STANDARD:
        yield sys.stdout
        return
    try:
        with atomic_file(Path(target), mode=None) as file:
            yield file
    except OSError as error:
        raise TextFileError(f"cannot write {target}: {error.strerror}") from error
