"""What software other than Mastodon does not say, by its recordings."""

import json
from typing import Any

import pytest
from pydantic import SecretStr

from mastodon_assets.errors import ServiceUnavailableError
from mastodon_assets.ingest.api.client import MastodonClient
from mastodon_assets.ingest.api.software import UNKNOWN, Software, software_of
from mastodon_assets.ingest.policy.admission import AdmissionPolicy
from mastodon_assets_tests.support.documents import status
from mastodon_assets_tests.support.handling import Handling
from mastodon_assets_tests.support.odd_server import Answer, Route, odd_server
from mastodon_assets_tests.support.recordings import exchange, recorded_answer, recorded_lines

pytestmark = pytest.mark.usefixtures("loopback")

_LINKS = {"gotosocial": "nodeinfo_wellknown", "takahe": "nodeinfo_links", "snac": "nodeinfo_links"}


def software(name: str) -> Software:
    return software_of(exchange(f"{name}/nodeinfo")["body"])


def asked(routes: dict[str, Route]) -> tuple[Software, list[tuple[str, Any]]]:
    with odd_server(routes) as server:
        client = MastodonClient(server.base_url, SecretStr("token"))
        return client.software(), server.requests


@pytest.mark.parametrize("name", _LINKS)
def test_software_is_known_by_its_nodeinfo_which_gets_no_token(name: str) -> None:
    links = exchange(f"{name}/{_LINKS[name]}")["body"]["links"]
    path = "/" + links[0]["href"].split("/", 3)[3]
    found, requests = asked(
        {
            "/.well-known/nodeinfo": recorded_answer(f"{name}/{_LINKS[name]}"),
            path: recorded_answer(f"{name}/nodeinfo"),
        }
    )
    assert found == software(name) != UNKNOWN
    assert not found.says_indexable
    assert not any("Authorization" in headers for _, headers in requests)


def test_a_server_without_nodeinfo_is_of_unknown_software() -> None:
    assert asked({})[0] == UNKNOWN
    assert asked({"/.well-known/nodeinfo": Answer(b"<html>")})[0] == UNKNOWN
    links = json.dumps({"links": [{"href": "https://[odd"}, {"href": 5}, 7]}).encode()
    assert asked({"/.well-known/nodeinfo": Answer(links)})[0] == UNKNOWN


def test_a_failure_is_not_taken_for_unknown_software() -> None:
    with pytest.raises(ServiceUnavailableError):
        asked({"/.well-known/nodeinfo": Answer(b"", 503)})


def test_constants_of_snac_say_nothing() -> None:
    documents = [each["status"] for each in recorded_lines("snac/statuses")]
    plain = next(each for each in documents if each["visibility"] == "public")
    assert plain["language"] == "en"
    assert plain["account"]["indexable"] is True

    opt_in = Handling(policy=AdmissionPolicy(consent="opt-in"), software=software("snac"))
    respect = Handling(instance="snac.example", software=software("snac"))
    for document in documents:
        opt_in.listed(document)
        respect.listed(document)

    assert opt_in.topics.messages == []
    assert {message["language"] for message in respect.topics.messages} == {None}
    assert respect.summary.upserts > 0


def test_a_public_post_that_is_listed_inside_a_boost_alone_is_read() -> None:
    boost = next(
        each["status"] for each in recorded_lines("snac/statuses") if each["status"]["reblog"]
    )
    listed = Handling(instance="snac.example", software=software("snac"))
    listed.listed(boost)
    assert [message["uri"] for message in listed.topics.messages] == [boost["reblog"]["uri"]]

    shy = status("2", account={"acct": "shy@far.example", "note": "<p>#nobot</p>"})
    refused = Handling(software=software("snac"))
    refused.listed(status("A2", reblog=shy))
    assert refused.summary.withheld == {"nobot": 1}

    streamed = Handling()
    streamed.event("update", boost)
    assert streamed.summary.withheld == {"boost": 1}


@pytest.mark.parametrize(
    ("name", "timeline", "kept"),
    [
        ("snac", "public", ["here", "far"]),
        ("snac", "local", ["here"]),
        ("snac", "remote", ["far"]),
        ("gotosocial", "remote", ["far"]),
        # Its local accounts may have several domains.
        ("takahe", "local", ["here", "far"]),
    ],
)
def test_posts_of_the_other_timeline_are_dropped(name: str, timeline: str, kept: list[str]) -> None:
    handling = Handling(instance="one.example", software=software(name), timeline=timeline)
    handling.listed(status("1", account={"acct": "here"}))
    handling.listed(status("2", account={"acct": "far@two.example"}))
    found = [message["username"].partition("@")[0] for message in handling.topics.messages]
    assert found == kept
    assert handling.summary.dropped.total() == 2 - len(kept)
