"""Deletes of many posts of one domain, as a server sends them that blocks it."""

from mastodon_assets_tests.support.documents import account, status
from mastodon_assets_tests.support.handling import Handling
from mastodon_assets_tests.support.log_lines import log_lines


def deletes_of(domain: str, count: int) -> list[str]:
    """Publish posts of an account, delete them at once, and return what is logged."""
    handling = Handling(instance="here.example")
    handle = "ada" if domain == "here.example" else f"ada@{domain}"
    for number in range(count):
        document = status(
            str(number),
            uri=f"https://pages.{domain}/users/ada/{number}",
            account=account(acct=handle),
        )
        handling.event("update", document)
    with log_lines() as lines:
        for number in range(count):
            handling.event("delete", str(number))
            handling.event("delete", f"never seen {number}")
    assert handling.summary.deletes == 2 * count
    return list(lines)


def test_many_deletes_of_another_domain_are_reported_once_as_a_block() -> None:
    (line,) = deletes_of("far.example", 120)
    assert "many posts of pages.far.example are deleted at once" in line
    assert "has probably blocked it" in line


def test_few_deletes_and_those_of_the_servers_own_accounts_are_none() -> None:
    assert deletes_of("far.example", 49) == []
    assert deletes_of("here.example", 120) == []
