"""The servers that the settings name, each with its sources and its token.

What belongs here: the assignment of sources and tokens to servers. Names of sources are in
`sources`.
"""

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from mastodon_assets.config.settings import Settings
from mastodon_assets.config.sources import Source, SourceEntry, address_of, parse_sources
from mastodon_assets.errors import SettingsError

TOKENS_ALLOWED = (
    "allowed: one token; for several servers a comma-separated list of host=token, with the hosts"
    " of MASTODON_API_BASE_URL"
)
_OTHERS_MAY_READ = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class Server:
    """A server to read; `address` is the host, with the port if the URL has one."""

    base_url: str
    address: str
    token: SecretStr | None
    sources: tuple[Source, ...]


def servers_of(settings: Settings) -> list[Server]:
    """Return the servers that the settings name, with their sources and tokens.

    Raises:
        SettingsError: Servers, sources and tokens do not match.
    """
    urls = (settings.mastodon_api_base_url or "").split(",")
    addresses = {address_of(url): url for url in urls if url}
    if not addresses:
        return []
    entries = parse_sources(settings.mastodon_sources)
    for entry in entries:
        if entry.address is not None and entry.address not in addresses:
            raise SettingsError(
                f"MASTODON_SOURCES: {entry.address} is not in MASTODON_API_BASE_URL; allowed:"
                f" {', '.join(addresses)}"
            )
    tokens = _tokens(settings, list(addresses))
    return [
        Server(url, address, tokens.get(address), _sources_of(address, entries))
        for address, url in addresses.items()
    ]


def _sources_of(address: str, entries: Sequence[SourceEntry]) -> tuple[Source, ...]:
    sources = dict.fromkeys(entry.source for entry in entries if entry.address in (None, address))
    if not sources:
        raise SettingsError(
            f"MASTODON_SOURCES names no source of {address}; add one, or remove {address} from"
            " MASTODON_API_BASE_URL"
        )
    return tuple(sources)


def _tokens(settings: Settings, addresses: Sequence[str]) -> dict[str, SecretStr]:
    tokens: dict[str, SecretStr] = {}
    if settings.mastodon_access_tokens_file is not None:
        tokens |= _tokens_of_file(settings.mastodon_access_tokens_file)
    if settings.mastodon_access_token is not None:
        tokens |= _tokens_of_text(settings.mastodon_access_token.get_secret_value(), addresses)
    return tokens


def _tokens_of_text(text: str, addresses: Sequence[str]) -> dict[str, SecretStr]:
    pairs = [entry.partition("=") for entry in text.split(",")]
    named = [host.strip().lower() for host, _, _ in pairs]
    if len(addresses) == 1 and named[0] not in addresses:
        return {addresses[0]: SecretStr(text)}
    # A token is sent to its own server and to no other.
    if not all(token for _, _, token in pairs) or not set(named) <= set(addresses):
        raise SettingsError(f"MASTODON_ACCESS_TOKEN=***: {TOKENS_ALLOWED}")
    return {
        host: SecretStr(token.strip()) for host, (_, _, token) in zip(named, pairs, strict=True)
    }


def _tokens_of_file(path: Path) -> dict[str, SecretStr]:
    """Read lines `host token`; empty lines and lines that begin with # are skipped."""
    name = f"MASTODON_ACCESS_TOKENS_FILE={path}"
    try:
        if path.stat().st_mode & _OTHERS_MAY_READ:
            raise SettingsError(f"{name}: other users can read it; run: chmod 600 {path}")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SettingsError(f"{name}: {reason}; name a readable file") from error
    tokens: dict[str, SecretStr] = {}
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            raise SettingsError(f"{name}, line {number}: allowed: a host, a space and its token")
        tokens[words[0].lower()] = SecretStr(words[1])
    return tokens
