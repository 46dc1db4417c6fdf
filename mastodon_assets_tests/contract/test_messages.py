from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mastodon_assets.contract.messages import ContractError, decode, encode, message_key
from mastodon_assets_tests.support.cases import ACCEPTED, REJECTED
from mastodon_assets_tests.support.records import RECEIVED, delete, upsert


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_message_that_keeps_the_contract_is_read(name: str) -> None:
    assert decode(ACCEPTED[name], RECEIVED)["op"] in ("upsert", "delete")


@pytest.mark.parametrize("name", REJECTED)
def test_a_message_that_breaks_the_contract_is_refused_with_a_reason(name: str) -> None:
    with pytest.raises(ContractError) as raised:
        decode(REJECTED[name], RECEIVED)
    assert 0 < len(str(raised.value)) <= 320
    assert "\n" not in str(raised.value)


def test_a_reason_does_not_repeat_the_value() -> None:
    with pytest.raises(ContractError) as raised:
        decode(orjson.dumps(upsert(username=["secret@one.example"])), RECEIVED)
    assert "secret" not in str(raised.value)
    assert "username" in str(raised.value)


def test_times_are_utc() -> None:
    message = decode(ACCEPTED["offset instead of Z"], RECEIVED)
    assert message["created_at"] == datetime(2026, 11, 20, 11, 59, 0, 123456, tzinfo=UTC)


def test_what_postgresql_cannot_hold_is_replaced_and_the_rest_kept() -> None:
    assert decode(ACCEPTED["NUL in the text"], RECEIVED)["content_txt"] == "a�b"
    assert decode(ACCEPTED["half of a surrogate pair"], RECEIVED)["content_txt"] == "a�b"
    pair = orjson.dumps(upsert()).replace(b'"hello"', b'"\\ud83d\\ude00"')
    assert decode(pair, RECEIVED)["content_txt"] == "😀"


def test_line_separators_stay_in_the_text() -> None:
    message = decode(ACCEPTED["line separator in the text"], RECEIVED)
    assert message["content_txt"] == "a\u2028b\u0085c"


def test_a_language_that_is_not_declared_is_und() -> None:
    assert decode(ACCEPTED["language null"], RECEIVED)["lang"] == "und"
    assert decode(ACCEPTED["language empty"], RECEIVED)["lang"] == "und"
    assert decode(ACCEPTED["language that is no tag"], RECEIVED)["lang"] == "und"
    assert decode(ACCEPTED["language zh-TW"], RECEIVED)["lang"] == "zh-TW"


def test_hashtags_are_lower_case_and_unique() -> None:
    message = decode(orjson.dumps(upsert(hashtags=["News", "news", "ÄRGER"])), RECEIVED)
    assert message["hashtags"] == ["news", "ärger"]


def test_a_message_of_the_first_version_gets_what_it_lacks() -> None:
    message = decode(ACCEPTED["first version with a numeric id"], RECEIVED)
    assert (message["instance"], message["status_id"]) == ("unknown", "42")
    assert message["uri"] == "unknown/42"
    assert message["received_at"] == RECEIVED
    assert message["hashtags"] == ["a"]


def test_a_delete_carries_only_its_place_and_time() -> None:
    assert set(decode(orjson.dumps(delete()), RECEIVED)) == {
        "op",
        "instance",
        "status_id",
        "received_at",
    }


def test_what_is_published_is_checked_and_cleaned() -> None:
    with pytest.raises(ContractError):
        encode(upsert(id=""))
    assert decode(encode(upsert(content="a\x00\ud83d")), RECEIVED)["content_txt"] == "a��"
    assert message_key("one.example", "1") == b"one.example/1"


@given(st.text())
def test_every_text_survives_or_is_replaced_by_character(text: str) -> None:
    content = decode(encode(upsert(content=text)), RECEIVED)["content_txt"]
    assert len(content) == len(text)
    assert "\x00" not in content
    content.encode("utf-8")


@given(st.binary())
def test_no_bytes_raise_anything_but_a_contract_error(value: bytes) -> None:
    with pytest.raises(ContractError):
        decode(value, RECEIVED)
