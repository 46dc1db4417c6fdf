"""The one form in which an account is named."""

from collections.abc import Mapping
from urllib.parse import urlsplit


def full_handle(account: object, instance: str) -> str | None:
    """`user@domain` of an account or a mention; None where it has no name.

    The name of an account of the server asked comes without its domain.
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
    except ValueError:  # "https://[", say
        return None
