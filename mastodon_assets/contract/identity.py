"""The one form of an account's name."""

from collections.abc import Mapping
from urllib.parse import urlsplit


def full_handle(account: object, instance: str) -> str | None:
    """Return the `user@domain` of an account or a mention; None if it has no name.

    Args:
        account: An `Account` or `Mention` object of Mastodon's API.
        instance: The server that was read. It names its own accounts without a domain.
    """
    if not isinstance(account, Mapping):
        return None
    name = account.get("acct") or account.get("username")
    if not isinstance(name, str):
        return None
    return str(name) if "@" in name else f"{name}@{_domain(account.get('url')) or instance}"


def _domain(url: object) -> str | None:
    if not isinstance(url, str):
        return None
    try:
        return urlsplit(url).hostname
    except ValueError:  # such as "https://["
        return None
