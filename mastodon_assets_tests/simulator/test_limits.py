"""The server's limits, counted and as a client meets them."""

from datetime import datetime

import pytest

from mastodon_assets.simulator.limits import Limit, RequestLimits
from mastodon_assets.simulator.server import running, synthetic_source
from mastodon_assets_tests.support.simulator_client import client

TIMELINE = "/api/v1/timelines/public"


def test_paged_requests_have_a_limit_of_their_own_that_ends_with_its_window() -> None:
    now = 1_000_000.0
    limits = RequestLimits(every=Limit(5, 100), paged=Limit(2, 300), clock=lambda: now)
    paged, plain = f"{TIMELINE}?min_id=1&limit=40", f"{TIMELINE}?limit=40"

    assert [limits.count(paged)[0] for _ in range(3)] == [True, True, False]
    assert [limits.count(plain)[0] for _ in range(3)] == [True, True, False]
    assert limits.refused == 2
    now += 100
    assert (limits.count(plain)[0], limits.count(paged)[0]) == (True, False)
    now += 200
    assert limits.count(paged)[0]


def test_the_headers_name_the_nearest_limit() -> None:
    limits = RequestLimits(every=Limit(5, 100), paged=Limit(2, 300), clock=lambda: 1_000_000.0)
    _, headers = limits.count(f"{TIMELINE}?max_id=1")
    assert headers["X-RateLimit-Limit"] == "2"
    assert headers["X-RateLimit-Remaining"] == "1"
    reset = datetime.fromisoformat(headers["X-RateLimit-Reset"])
    assert reset.timestamp() == 1_000_200


@pytest.mark.usefixtures("loopback")
def test_a_client_over_the_limit_is_refused_with_the_time_of_its_end() -> None:
    source = synthetic_source(toots=20, days=1, seed=1)
    limits = RequestLimits(paged=Limit(2, 1000))
    with running(source, limits=limits) as server, client(server) as http:
        answers = [http.get(TIMELINE, params={"min_id": "0"}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["1", "0", "0"]
        assert datetime.fromisoformat(answers[2].headers["X-RateLimit-Reset"]).tzinfo
        assert http.get(TIMELINE).status_code == 200
        assert http.get("/api/v1/streaming/health").status_code == 200
