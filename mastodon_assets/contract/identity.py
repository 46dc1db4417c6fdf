"""The one form of accounts, servers and hashtags.

What belongs here: how a handle, a domain or a hashtag is written so that two spellings of it are
equal. Counting, filters, pseudonyms, suppression list, purge and dead letters compare these forms.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

import idna

# The instance of messages whose server is not known.
UNKNOWN_INSTANCE = "unknown"
_HOST = re.compile(r"\A[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?([^/?#@:]+)")
# Letters without a decomposition that Mastodon folds in hashtags (app/lib/ascii_folding.rb).
_ASCII_LETTERS = str.maketrans("đðħıĸłŋøŧ", "ddhiklnot")


def full_handle(account: object, instance: str) -> str | None:
    """Return the `user@domain` of an account or a mention in its one form; None without a name.

    The domain is the one under which the Fediverse finds the account. For an account of the server
    that was read it is the server's own domain, which is not always the host of its pages.

    Args:
        account: An `Account` or `Mention` object of Mastodon's API.
        instance: The domain of the server that was read, which names its own accounts without one.
    """
    if not isinstance(account, Mapping):
        return None
    name, is_complete = account.get("acct"), True
    if not name:
        name, is_complete = account.get("username"), False
    if not isinstance(name, str):
        return None
    if "@" in name:
        return account_form(name)
    host = uri_host(account.get("url"))
    is_local = is_complete and instance != UNKNOWN_INSTANCE
    return account_form(f"{name}@{instance if is_local else host or instance}")


@lru_cache(maxsize=65_536)
def account_form(handle: str) -> str:
    """Return a handle in its one form: lower case, no leading @, the domain as `domain_form`."""
    name, separator, domain = handle.removeprefix("@").partition("@")
    return f"{name.lower()}{separator}{domain_form(domain)}"


@lru_cache(maxsize=65_536)
def domain_form(domain: str) -> str:
    """Return a domain in its one form: IDNA in ASCII, lower case, no dot at the end."""
    plain = domain.lower().rstrip(".")
    if plain.isascii():
        return plain
    try:
        return idna.encode(plain, uts46=True).decode("ascii")
    except UnicodeError:  # IDNAError is one
        return unicodedata.normalize("NFKC", plain)


def unicode_domain(domain: str) -> str:
    """Return the Unicode form of a domain in ASCII; the domain itself if it has none."""
    try:
        return idna.decode(domain) if "xn--" in domain else domain
    except UnicodeError:  # IDNAError is one
        return domain


def tag_form(tag: str) -> str:
    """Return a hashtag in its one form: NFKC and lower case, no number sign."""
    if tag.isascii():
        return tag.removeprefix("#").lower()
    return unicodedata.normalize("NFKC", tag).removeprefix("#").lower()


def tag_forms(tags: Iterable[str]) -> list[str]:
    """Return hashtags in their one form, unique, in their order."""
    return list(dict.fromkeys(map(tag_form, tags)))


def searched_tag(tag: str) -> str:
    """Return a hashtag as Mastodon's servers compare it: `tag_form` without Latin accents."""
    folded = tag_form(tag)
    if folded.isascii():
        return folded
    plain = (
        unicodedata.normalize("NFD", letter)[0] if "\u00c0" <= letter <= "\u017f" else letter
        for letter in folded
    )
    return "".join(plain).translate(_ASCII_LETTERS)


def uri_host(uri: object) -> str | None:
    """Return the host of a URI in the form of a domain; None if it has none."""
    if not isinstance(uri, str):
        return None
    found = _HOST.match(uri)
    if found is None:
        return None
    try:
        return domain_form(urlsplit(uri).hostname or "") or None
    except ValueError:  # such as "https://["
        return None
