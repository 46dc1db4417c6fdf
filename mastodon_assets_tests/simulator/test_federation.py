"""Two simulated servers that show each other's posts, held against recordings of two real ones."""

from typing import Any

import httpx
import pytest

from mastodon_assets.simulator.federation import FederatedSource, seen_abroad
from mastodon_assets.simulator.server import SimulatorServer, running, synthetic_source
from mastodon_assets_tests.support.documents import account, status

HOME, ABROAD = "b.fed.example", "a.gts.example"
pytestmark = pytest.mark.usefixtures("loopback")


def page(server: SimulatorServer, query: str = "") -> list[dict[str, Any]]:
    found = httpx.get(f"{server.base_url}/api/v1/timelines/public?limit=40{query}").json()
    assert isinstance(found, list)
    return found


def everything(server: SimulatorServer, kind: str = "") -> dict[str, dict[str, Any]]:
    """All posts of a timeline, by uri; paging must neither repeat nor leave out any."""
    seen: dict[str, dict[str, Any]] = {}
    max_id = ""
    while listed := page(server, f"{max_id}{kind}"):
        assert seen.keys().isdisjoint(each["uri"] for each in listed)
        seen |= {each["uri"]: each for each in listed}
        max_id = f"&max_id={listed[-1]['id']}"
    return seen


def test_a_post_abroad_has_another_id_and_times_without_fractions() -> None:
    """As in the recordings of two GoToSocials that federate."""
    local = status("1", account=account(acct="bea"), created_at="2026-11-29T08:40:10.910Z")
    abroad = seen_abroad(local | {"edited_at": "2026-11-29T08:41:10.999Z"}, "fed.example")
    assert abroad["created_at"] == "2026-11-29T08:40:10.000Z"
    assert abroad["edited_at"] == "2026-11-29T08:41:10.000Z"
    assert abroad["account"]["acct"] == "bea@fed.example"
    assert abroad["id"] != local["id"]
    same = ("uri", "url", "content", "language", "visibility")
    assert [abroad[name] for name in same] == [local[name] for name in same]


def test_a_block_deletes_what_home_still_lists_and_hears_nothing_more() -> None:
    home, abroad = (
        FederatedSource(synthetic_source(toots=80, days=1, seed=3, domain=domain), domain)
        for domain in (HOME, ABROAD)
    )
    home.send_to(abroad)
    abroad.send_to(home)
    with running(home, domain=HOME) as at_home, running(abroad, domain=ABROAD) as there:
        local = everything(at_home, "&local=true")
        listed = everything(there)
        assert local.keys() <= listed.keys()
        assert len(local) > 10
        seen = {uri: listed[uri]["id"] for uri in local}
        # One by one it is found by its id there, and walked to by `min_id` in order.
        first = page(there, f"&min_id={min(seen.values(), key=int)}")
        assert [int(each["id"]) for each in first] == sorted(
            (int(each["id"]) for each in first), reverse=True
        )
        some = next(iter(seen.values()))
        url = f"{there.base_url}/api/v1/statuses/{some}"
        assert httpx.get(url).json()["account"]["acct"].endswith(f"@{HOME}")

        gone = next(iter(local.values()))
        home.remove([gone["id"]])
        assert gone["uri"] not in everything(at_home) | everything(there)
        assert set(abroad.block()) == set(seen.values()) - {seen[gone["uri"]]}
        assert local.keys().isdisjoint(everything(there))
        assert everything(at_home).keys() >= local.keys() - {gone["uri"]}
        assert httpx.get(url).status_code == 404
        home.send_to(abroad)
        assert local.keys().isdisjoint(everything(there))
