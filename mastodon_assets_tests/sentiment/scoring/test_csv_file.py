import csv
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mastodon_assets.config.settings import Settings, as_environment
from mastodon_assets.sentiment.models.store import LoadedModel
from mastodon_assets.sentiment.scoring import csv_file
from mastodon_assets.sentiment.scoring.csv_file import RESULT_COLUMNS, TextFileError, score_file
from mastodon_assets.sentiment.train import TrainingResult


def _ignore(line: str) -> None:
    pass


def _scored(
    spark: SparkSession, model: LoadedModel, folder: Path, content: str | bytes
) -> list[dict[str, str]]:
    source, target = folder / "in.csv", folder / "out.csv"
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    score_file(spark, model, str(source), str(target), low=0.45, high=0.55, report=_ignore)
    limit = csv.field_size_limit(16_000_000)
    try:
        with target.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    finally:
        csv.field_size_limit(limit)


def test_a_files_rows_and_columns_are_kept_in_their_order(
    spark: SparkSession, model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_file, "_ROWS_PER_CHUNK", 2)
    rows = _scored(
        spark,
        model,
        tmp_path,
        "id,text,lang,note\n"
        "7,I am so happy,en,=1+1\n"
        '8,"I am so sad,\n""really"" sad",en-GB,\n'
        "9,猫,ja,ä\n"
        "\n"
        "10,https://one.example/,en,last\n",
    )
    assert list(rows[0]) == ["id", "text", "lang", "note", *RESULT_COLUMNS]
    assert [row["id"] for row in rows] == ["7", "8", "9", "10"]
    assert [row["note"] for row in rows] == ["=1+1", "", "ä", "last"]
    assert rows[1]["text"] == 'I am so sad,\n"really" sad'
    assert [row["label_str"] for row in rows] == ["positive", "negative", "", ""]
    assert [row["label_bin"] for row in rows] == ["1", "0", "", ""]
    assert [row["reason"] for row in rows] == ["", "", "unsupported_language", "no_words"]
    assert float(rows[0]["prob_pos"]) > 0.55
    assert rows[2]["prob_pos"] == ""


def test_one_very_long_text_among_others_is_scored_by_its_beginning(
    spark: SparkSession, model: LoadedModel, tmp_path: Path
) -> None:
    long = "I am so happy. " * 140_000
    rows = _scored(
        spark, model, tmp_path, f"text,lang\nI am so sad,en\n{long},en\nwhat a good day,en\n"
    )
    assert [row["label_str"] for row in rows] == ["negative", "positive", "positive"]
    assert rows[1]["text"] == long
    assert csv.field_size_limit() == 131_072


def test_a_chunk_ends_after_many_characters(
    spark: SparkSession, model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_file, "_CHARACTERS_PER_CHUNK", 20)
    sizes: list[int] = []
    score_chunk = csv_file._score_chunk

    def counted(*arguments: Any, **thresholds: Any) -> Any:
        sizes.append(len(arguments[3]))
        return score_chunk(*arguments, **thresholds)

    monkeypatch.setattr(csv_file, "_score_chunk", counted)
    rows = _scored(spark, model, tmp_path, "text,lang\n" + "I am so happy,en\n" * 5)
    assert sizes == [2, 2, 1]
    assert len(rows) == 5


def test_a_quote_that_is_never_closed_is_one_line_with_its_line_number(
    spark: SparkSession, model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_file, "_MAX_FIELD", 1_000)
    content = "text,lang\nI am so happy,en\n" + '"never closed,en\n' + "a good day,en\n" * 200
    with pytest.raises(TextFileError, match=r"in\.csv, line \d+: field larger than field limit"):
        _scored(spark, model, tmp_path, content)


def test_a_byte_order_mark_and_windows_line_ends_are_no_matter(
    spark: SparkSession, model: LoadedModel, tmp_path: Path
) -> None:
    (row,) = _scored(spark, model, tmp_path, b"\xef\xbb\xbftext,lang\r\nI am so happy,en\r\n")
    assert row["label_str"] == "positive"
    assert row["lang"] == "en"


def test_a_file_scored_again_has_its_results_once(
    spark: SparkSession, model: LoadedModel, tmp_path: Path
) -> None:
    first = _scored(spark, model, tmp_path, "text,lang\nI am so happy,en\n")
    again = _scored(spark, model, tmp_path, (tmp_path / "out.csv").read_bytes())
    assert again == first


def test_a_file_without_rows_has_a_header_only(
    spark: SparkSession, model: LoadedModel, tmp_path: Path
) -> None:
    assert _scored(spark, model, tmp_path, "lang,text\n") == []
    assert (tmp_path / "out.csv").read_text() == "lang,text,prob_pos,label_bin,label_str,reason\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "the first line must have the columns text and lang; missing: text, lang"),
        ("text\na\n", "missing: lang"),
        ("text,lang,text\n", "two columns are named 'text'"),
        ("text,lang\na\n", "line 2: 1 columns instead of 2"),
        ("text,lang\na,b,en\n", "line 2: 3 columns instead of 2"),
        ('text,lang\n"a,en\n', "unexpected end of data"),
        (b"text,lang\n\xe9t\xe9,fr\n", "is not UTF-8"),
    ],
)
def test_a_file_that_is_no_such_csv_is_one_line_and_the_old_result_stays(
    spark: SparkSession,
    model: LoadedModel,
    tmp_path: Path,
    content: str | bytes,
    reason: str,
) -> None:
    (tmp_path / "out.csv").write_text("old")
    with pytest.raises(TextFileError) as raised:
        _scored(spark, model, tmp_path, content)
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv", "out.csv"}
    assert (tmp_path / "out.csv").read_text() == "old"


def test_files_that_cannot_be_opened_are_one_line(
    spark: SparkSession, model: LoadedModel, tmp_path: Path
) -> None:
    with pytest.raises(TextFileError, match=r"cannot read .*nosuch.csv: No such file"):
        score_file(spark, model, str(tmp_path / "nosuch.csv"), "-", low=0, high=1, report=_ignore)
    source = tmp_path / "in.csv"
    source.write_text("text,lang\n")
    with pytest.raises(TextFileError, match=r"cannot write .*out.csv: No such file"):
        score_file(
            spark,
            model,
            str(source),
            str(tmp_path / "nosuch" / "out.csv"),
            low=0,
            high=1,
            report=_ignore,
        )


def test_the_command_reads_standard_input_and_writes_standard_output(
    settings: Settings, trained: TrainingResult, tmp_path: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "mastodon_assets.cli.main", "score", "--file", "-"],
        env={**os.environ, **as_environment(settings)},
        cwd=tmp_path,
        input="text,lang\nI am so happy,en\n",
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    (row,) = csv.DictReader(io.StringIO(ended.stdout))
    assert row["label_str"] == "positive"
    assert "starting Spark" in ended.stderr
