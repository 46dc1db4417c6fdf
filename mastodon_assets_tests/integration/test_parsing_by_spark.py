import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import jsonschema_rs
from pyspark.sql import functions as F

from mastodon_assets.config.settings import Settings
from mastodon_assets.contract.messages import message_schema, post_id
from mastodon_assets.stream.drain import drain
from mastodon_assets.stream.merge import BatchCounts
from mastodon_assets.stream.parse import collect_rows, parse_records
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.cases import ACCEPTED, REJECTED
from mastodon_assets_tests.support.collision import uris_with_one_hash
from mastodon_assets_tests.support.records import RECEIVED, as_value, on_partition, staged, upsert

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_CASES = {**ACCEPTED, **REJECTED}


def _records(spark: "SparkSession", values: list[bytes | None]) -> "DataFrame":
    """A frame with the columns of Spark's Kafka source."""
    return spark.createDataFrame(
        [
            (b"key", value, "mastodon_stream", 0, offset, RECEIVED)
            for offset, value in enumerate(values)
        ],
        "key binary, value binary, topic string, partition int, offset long, timestamp timestamp",
    )


def _schema_accepts(value: bytes | None) -> bool:
    """What the JSON Schema alone says, read with the standard library."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        document = json.loads((value or b"").decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    # The validator takes no lone surrogates; the schema does not look at them.
    text = json.dumps(document).encode("ascii").replace(b"\\ud83d", b"\\ufffd")
    return jsonschema_rs.is_valid(message_schema(), json.loads(text), validate_formats=True)


def test_spark_and_the_json_schema_agree_on_every_case(spark: "SparkSession") -> None:
    parsed = parse_records(_records(spark, list(_CASES.values())))
    rows = collect_rows(parsed).rows.to_pylist()
    reasons = {row["kafka_offset"]: row["reject_reason"] for row in rows}
    by_spark = {name: reasons[offset] is None for offset, name in enumerate(_CASES)}
    by_schema = {name: _schema_accepts(value) for name, value in _CASES.items()}
    assert by_spark == by_schema
    assert by_spark == {name: name in ACCEPTED for name in _CASES}


def test_rows_made_without_spark_are_what_spark_makes(spark: "SparkSession") -> None:
    values = list(_CASES.values())
    by_spark = collect_rows(parse_records(_records(spark, values))).rows.sort_by("kafka_offset")
    by_hand = staged(on_partition(values)).sort_by("kafka_offset")
    assert by_spark.to_pylist() == by_hand.to_pylist()


def test_payloads_are_kept_on_demand(spark: "SparkSession") -> None:
    values = [as_value(upsert()), b"garbage"]
    records = _records(spark, values)
    without = collect_rows(parse_records(records)).rows.column("payload").to_pylist()
    kept = (
        collect_rows(parse_records(records, keep_payloads=True)).rows.column("payload").to_pylist()
    )
    assert without == [None, b"garbage"]
    assert kept == values


def test_a_post_has_the_key_that_sparks_hash_gives_it(spark: "SparkSession") -> None:
    uris = ["https://one.example/1", "https://one.example/3", "ü", "x" * 4096, *map(str, range(8))]
    hashed = spark.createDataFrame([(uri,) for uri in uris], "uri string")
    by_spark = [row.id for row in hashed.select(F.xxhash64("uri").alias("id")).collect()]
    assert [post_id(uri) for uri in uris] == by_spark
    assert min(by_spark) < 0 < max(by_spark)


def test_a_batch_without_records_is_a_table_without_rows(spark: "SparkSession") -> None:
    assert collect_rows(parse_records(_records(spark, []))).rows.num_rows == 0


def test_every_case_goes_from_kafka_to_a_table(
    spark: "SparkSession", settings: Settings, produce: Callable[..., None]
) -> None:
    produce(list(_CASES.values()))
    summary = drain(lambda: spark, settings, report=print)
    assert summary.counts.messages == len(_CASES)
    assert summary.counts.rejected == len(REJECTED)
    with transaction(settings.postgres_url, snapshot=True) as connection:
        rejected = connection.execute(
            "SELECT kafka_offset, payload FROM masto.toots_rejected ORDER BY 1"
        ).fetchall()
    expected = [(offset, value) for offset, (name, value) in enumerate(_CASES.items())]
    assert rejected == [pair for pair in expected if pair[0] >= len(ACCEPTED)]


def test_a_drain_in_several_batches_reads_each_message_once(
    spark: "SparkSession", settings: Settings, produce: Callable[..., None]
) -> None:
    for partition in range(4):
        produce([upsert(f"{partition}-{number}") for number in range(50)], partition)
    small = settings.model_copy(update={"max_offsets_per_batch": 40})
    summary = drain(lambda: spark, small, report=print)
    assert summary.batches >= 5
    assert summary.counts == BatchCounts(stored=200)
    again = drain(lambda: spark, small, report=print)
    assert (again.batches, again.counts) == (0, BatchCounts())
    assert again.start == again.end == summary.end


def test_a_new_drain_needs_no_session_where_nothing_is_new(settings: Settings) -> None:
    def no_session() -> "SparkSession":
        raise AssertionError("a session was asked for")

    assert drain(no_session, settings, report=print).batches == 0


def test_a_post_that_is_rejected_by_what_the_tables_hold_is_kept_with_its_bytes(
    spark: "SparkSession", settings: Settings, produce: Callable[..., None]
) -> None:
    one, other = uris_with_one_hash()
    produce([upsert("1", uri=one), upsert("2", uri=other), upsert("3")])
    summary = drain(lambda: spark, settings, report=print)
    assert summary.counts == BatchCounts(stored=2, rejected=1)
    with transaction(settings.postgres_url, snapshot=True) as connection:
        rejected = connection.execute("SELECT payload FROM masto.toots_rejected").fetchone()
    assert rejected is not None
    assert rejected[0].startswith(b'{"v":1,')
