"""GET parameters to filters and back."""

from datetime import UTC, date, datetime, timedelta
from urllib.parse import parse_qsl

import pytest

from mastodon_assets.dashboard.filters import (
    PERIODS,
    FilterError,
    Filters,
    parse_filters,
    scope_at,
)

_NOW = datetime(2026, 11, 29, 17, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "period=1h",
        "period=all&language=de&hashtag=tea&server=one.example",
        "from=2026-11-01&to=2026-11-20&hashtag=%E6%97%A5%E6%9C%AC%E8%AA%9E",
    ],
)
def test_a_query_gives_filters_that_give_the_same_query(query: str) -> None:
    assert parse_filters(dict(parse_qsl(query))).query == query


def test_hashtag_and_server_take_their_one_form_and_empty_fields_are_absent() -> None:
    given = {"hashtag": " #TeA ", "server": "BÜCHER.example.", "language": "DE", "period": ""}
    assert parse_filters({**given, "from": "", "to": "", "utm_source": "x"}) == Filters(
        language="de", hashtag="tea", server="xn--bcher-kva.example"
    )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"period": "2w"}, "period=2w: allowed: 1h, 6h, 24h, 7d, 30d, 365d, all"),
        ({"from": "2026-11-01"}, "from and to: give both, or neither"),
        ({"from": "2026-11-02", "to": "2026-11-01"}, "from=2026-11-02: allowed: at most"),
        ({"from": "yesterday", "to": "2026-11-01"}, "from=yesterday: allowed: a day such as"),
        ({"from": "0001-01-01", "to": "9999-12-31"}, "from=0001-01-01: allowed: a day such as"),
        ({"language": "<script>"}, "language=<script>: allowed: a code such as en"),
        ({"hashtag": "a" * 201}, "hashtag: allowed: at most 200 characters"),
        ({"server": "\0"}, "server: allowed"),
    ],
)
def test_a_wrong_value_is_one_line_that_says_what_is_allowed(
    parameters: dict[str, str], message: str
) -> None:
    with pytest.raises(FilterError) as refused:
        parse_filters(parameters)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_long_periods_are_whole_days_and_days_are_inclusive() -> None:
    assert scope_at(Filters(period="7d"), _NOW).start == datetime(2026, 11, 22, tzinfo=UTC)
    assert scope_at(Filters(period="24h"), _NOW).start == _NOW - timedelta(hours=24)
    assert scope_at(Filters(period="all"), _NOW).start is None
    days = Filters(first_day=date(2026, 11, 1), last_day=date(2026, 11, 2))
    scope = scope_at(days, _NOW)
    assert (scope.start, scope.end) == (
        datetime(2026, 11, 1, tzinfo=UTC),
        datetime(2026, 11, 3, tzinfo=UTC),
    )
    assert scope.last_day == date(2026, 11, 2)


def test_only_short_periods_up_to_now_without_hashtag_and_server_are_by_minute() -> None:
    by_minute = [p for p in PERIODS if scope_at(Filters(period=p), _NOW).is_by_minute]
    assert by_minute == ["1h", "6h"]
    assert not scope_at(Filters(period="1h", hashtag="tea"), _NOW).is_by_minute
    assert not scope_at(Filters(period="1h", server="one.example"), _NOW).is_by_minute
    assert scope_at(Filters(period="1h", language="de"), _NOW).is_by_minute


def test_a_view_can_be_cited_by_days_that_do_not_move() -> None:
    fixed = scope_at(Filters(period="7d", language="de"), _NOW).fixed
    assert fixed.query == "from=2026-11-22&to=2026-11-29&language=de"
    assert scope_at(Filters(period="all"), _NOW).fixed.query == "period=all"
