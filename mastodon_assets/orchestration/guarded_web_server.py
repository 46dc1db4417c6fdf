"""Dagster's web server behind a check of Host and Origin: `python -m …guarded_web_server`.

Dagster serves every page that a browser of this machine has open: a foreign page could launch runs
by it. What belongs here: what the check must know about Dagster. Options are those of
`dagster-webserver`.
"""

from importlib import import_module
from typing import Any
from urllib.parse import parse_qs

from mastodon_assets import web_guard
from mastodon_assets.web_guard import App, Scope


def guarded(app: App, hosts: list[str]) -> App:
    """Return `app` for requests to `hosts` only, and from pages of its own only."""
    return web_guard.guarded(app, hosts, is_page=_is_page, refusal=_refusal)


def _refusal(scope: Scope) -> str | None:
    # Only POST is subject to all checks in every browser.
    if scope.get("method") == "GET" and _is_graphql(scope) and _has_query(scope):
        return "refused: queries are sent by POST"
    return None


def _is_page(scope: Scope) -> bool:
    return not _is_graphql(scope)


def _is_graphql(scope: Scope) -> bool:
    return str(scope["path"]).rstrip("/").endswith("/graphql")


def _has_query(scope: Scope) -> bool:
    return "query" in parse_qs(scope["query_string"].decode("latin-1"))


def main() -> None:
    """Run `dagster-webserver` with its application guarded."""
    from mastodon_assets.config.settings import load_settings

    hosts = load_settings().ui_hosts.split(",")
    cli: Any = import_module("dagster_webserver.cli")
    build = cli.create_app_from_workspace_process_context

    def build_guarded(*arguments: Any, **options: Any) -> App:
        return guarded(build(*arguments, **options), hosts)

    cli.create_app_from_workspace_process_context = build_guarded
    cli.main()


if __name__ == "__main__":
    main()
