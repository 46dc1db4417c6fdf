from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mastodon_assets.contract.fast_decoder import decode_fast
from mastodon_assets.stream import parse
from mastodon_assets_tests.support.cases import ACCEPTED, REJECTED
from mastodon_assets_tests.support.records import on_partition, staged, upsert

_TEXTS = st.text(max_size=8) | st.sampled_from(["", "\x00", "a\u2028b", "x" * 256, "x" * 501])
_TIMES = st.sampled_from(
    [
        "2026-11-20T11:59:00Z",
        "2026-11-20T11:59:00.123456Z",
        "2026-11-20T11:59:00.1234567Z",
        "2026-11-20T11:59:00.Z",
        "2026-11-20T11:59:00+00:00",
        "2026-11-20 11:59:00Z",
        "2026-11-20t11:59:00z",
        "2026-02-29T00:00:00Z",
        "2026-11-20T24:00:00Z",
        "2026-11-20T23:59:60Z",
        "2026-11-20T11:59:00Z\n",
        "9899-12-31T23:59:59Z",
        "9900-01-01T00:00:00Z",
        "0999-01-01T00:00:00Z",
    ]
)
_ANYTHING = (
    _TEXTS
    | _TIMES
    | st.none()
    | st.booleans()
    | st.sampled_from([0, -1, 1, 1.0, 1.5, 2**31 - 1, 2**31, 2**63])
    | st.lists(_TEXTS, max_size=2)
)


@pytest.mark.parametrize("value", [*ACCEPTED.values(), *REJECTED.values()])
def test_a_message_of_the_table_of_cases_is_read_as_the_contract_reads_it(
    value: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _assert_read_alike([value], monkeypatch)


@given(
    changes=st.lists(
        st.dictionaries(st.sampled_from([*upsert(), "unknown"]), _ANYTHING, max_size=3), max_size=4
    )
)
def test_whatever_a_field_holds_a_message_is_read_as_the_contract_reads_it(
    changes: list[dict[str, Any]],
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        values = [orjson.dumps({**upsert(), **changed}) for changed in changes]
        _assert_read_alike([orjson.dumps(upsert()), *values], monkeypatch)


def test_what_our_ingester_writes_is_usual() -> None:
    assert decode_fast(orjson.dumps(upsert())) is not None


def _assert_read_alike(values: list[bytes | None], monkeypatch: pytest.MonkeyPatch) -> None:
    records = on_partition(values)
    read = staged(records, keep_payloads=True).sort_by("kafka_offset")
    monkeypatch.setattr(parse, "decode_fast", lambda value: None)
    by_contract = staged(records, keep_payloads=True)
    assert read.to_pylist() == by_contract.to_pylist()
