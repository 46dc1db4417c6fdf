import gzip
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from mastodon_assets.sentiment.models.promotion import SYNTHETIC_CORPUS
from mastodon_assets.sentiment.training.corpus import (
    CorpusUnreadableError,
    corpus_fingerprint,
    distinct_texts,
    find_corpus,
    load_corpus,
    read_corpus,
    with_templates,
)
from mastodon_assets.sentiment.training.synthetic import synthetic_texts

ROWS = [
    ("0", "so sad about the café &amp; the weather"),
    ("4", "what a &lt;b&gt;lovely&lt;/b&gt; day, I &quot;love&quot; it"),
    ("2", "it is Tuesday"),
    ("4", ",,,yes, a comma first"),
    ("0", "ends in a backslash \\"),
]


def _line(target: str, text: str) -> str:
    return f'"{target}","1","Mon Apr 06 22:19:45 PDT 2009","NO_QUERY","","{text}"\n'


def _write(path: Path, rows: Iterable[tuple[str, str]], encoding: str = "utf-8") -> Path:
    content = "".join(_line(target, text) for target, text in rows).encode(encoding)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def _texts(spark: SparkSession, path: Path) -> list[tuple[float, str]]:
    return [(row.target, row.text) for row in read_corpus(spark, path).collect()]


EXPECTED = [
    (0.0, "so sad about the café & the weather"),
    (1.0, 'what a <b>lovely</b> day, I "love" it'),
    (1.0, ",,,yes, a comma first"),
    (0.0, "ends in a backslash \\"),
]


@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1"])
@pytest.mark.parametrize("name", ["corpus.csv", "corpus.csv.gz"])
def test_both_encodings_plain_or_gzipped_give_the_same_texts(
    spark: SparkSession, tmp_path: Path, encoding: str, name: str
) -> None:
    assert _texts(spark, _write(tmp_path / name, ROWS, encoding)) == EXPECTED


def test_a_utf_8_file_is_not_taken_for_iso_8859_1_if_a_chunk_ends_within_a_character(
    spark: SparkSession, tmp_path: Path
) -> None:
    filler = [("0", "a" * 1000)] * 1500
    path = _write(tmp_path / "corpus.csv", [*filler, *[("4", "é" * 1000)] * 1500])
    assert {text[0] for _, text in _texts(spark, path)} == {"a", "é"}


@pytest.mark.parametrize(
    "content",
    [
        "text,label\nhello,1\n",
        "a text without columns\n",
        _line("0", "fine") + _line("4", "fine") + '"4","too","few"\n',
        _line("0", "fine") + _line("4", "fine") + _line("5", "no such target"),
        _line("0", "only one class"),
        "",
    ],
    ids=["header", "no columns", "too few columns", "unknown target", "one class", "empty"],
)
def test_another_format_is_a_one_line_error_that_names_file_and_format(
    spark: SparkSession, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "other.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CorpusUnreadableError) as raised:
        read_corpus(spark, path)
    message = str(raised.value)
    assert "other.csv" in message
    assert "six quoted columns" in message
    assert "\n" not in message


def test_a_missing_or_damaged_file_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusUnreadableError, match=r"nosuch\.csv.*No such file"):
        find_corpus(tmp_path / "nosuch.csv")
    damaged = tmp_path / "damaged.csv.gz"
    damaged.write_bytes(gzip.compress(_line("0", "a" * 5000).encode())[:-20])
    with pytest.raises(CorpusUnreadableError, match=r"damaged\.csv\.gz"):
        find_corpus(damaged)
    (tmp_path / "not_gzip.csv.gz").write_text("plain", encoding="utf-8")
    with pytest.raises(CorpusUnreadableError, match=r"not_gzip\.csv\.gz"):
        find_corpus(tmp_path / "not_gzip.csv.gz")


def test_a_file_and_its_gzip_have_one_fingerprint_and_other_content_another(
    tmp_path: Path,
) -> None:
    plain = corpus_fingerprint(_write(tmp_path / "a.csv", ROWS))
    assert corpus_fingerprint(_write(tmp_path / "b.csv.gz", ROWS)) == plain
    assert corpus_fingerprint(_write(tmp_path / "c.csv", ROWS[1:])) != plain


def test_a_text_is_kept_once_whatever_its_links_handles_and_case(spark: SparkSession) -> None:
    texts = spark.createDataFrame(
        [
            (1.0, "Lovely day @ada https://one.example/a"),
            (1.0, "lovely DAY @bob"),
            (0.0, "Lovely day"),
            (0.0, "a text of two minds"),
            (1.0, "a text of two minds"),
            (1.0, "@ada https://one.example/b"),
        ],
        "target double, text string",
    )
    rows = distinct_texts(texts).collect()
    assert [(row.target, row.text.lower()[:10]) for row in rows] == [(1.0, "lovely day")]


def test_the_split_does_not_depend_on_the_order_of_rows(spark: SparkSession) -> None:
    rows = [(float(number % 2), f"text number n{number} says so") for number in range(500)]
    shuffled = random.Random(3).sample(rows, len(rows))
    schema = "target double, text string"
    split = {
        (row.text, row.is_held_out)
        for row in distinct_texts(spark.createDataFrame(rows, schema)).collect()
    }
    again = {
        (row.text, row.is_held_out)
        for row in distinct_texts(spark.createDataFrame(shuffled, schema)).collect()
    }
    assert split == again
    held_out = sum(is_held_out for _, is_held_out in split)
    assert 60 <= held_out <= 140


def test_without_a_file_the_corpus_is_ours_and_says_so(spark: SparkSession) -> None:
    corpus = find_corpus(None)
    assert corpus.is_synthetic
    assert corpus.name == SYNTHETIC_CORPUS
    assert corpus == find_corpus(None)
    rows = load_corpus(spark, corpus).collect()
    assert len(rows) == len(set(synthetic_texts())) > 2000
    assert {row.target for row in rows} == {0.0, 1.0}


def test_no_lesson_is_a_text_that_a_corpus_holds_out(spark: SparkSession) -> None:
    texts = distinct_texts(load_corpus(spark, find_corpus(None)))
    held_out = {row.text for row in texts.where("is_held_out").collect()}
    templates = {row.text for row in with_templates(spark, texts.limit(0)).collect()}
    assert len(templates) > len(held_out) > 500
    assert not templates & held_out
