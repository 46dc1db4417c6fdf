"""Commands that bring posts into Kafka."""

import io
import json
import re
import signal
import sys
import time
from pathlib import Path

import httpx
import pytest

from mastodon_assets.config.settings import Settings, as_environment
from mastodon_assets.kafka.topics import read_topic
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.commands import Commands, read_until, started
from mastodon_assets_tests.support.documents import status
from mastodon_assets_tests.support.ports import free_port

PASSWORD = "s3cr3t"


def test_an_import_of_a_missing_file_is_one_line_and_status_1(commands: Commands) -> None:
    assert (
        commands.failure(1, "import", "missing.ndjson")
        == "missing.ndjson: No such file or directory"
    )


def test_statuses_of_standard_input_are_imported_with_their_counts(
    environment: Settings, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = f"{json.dumps(status('1'))}\nno status\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    ended = commands("import", "-", "--json")
    assert ended.status == 0, ended.err
    counts = json.loads(ended.out)
    assert (counts["received"], counts["upserts"], counts["errors"]) == (2, 1, {"not_json": 1})
    assert sum(read_topic(environment, environment.kafka_topic).end.values()) == 1


@pytest.mark.usefixtures("processes")
def test_the_simulator_takes_the_token_it_is_given_and_does_not_print_it() -> None:
    with started("simulate", "--port", "0", "--toots", "5", SIMULATOR_TOKEN=PASSWORD) as process:
        shown = read_until(process.stdout, "MASTODON_ACCESS_TOKEN=")
        found = re.search(r"http://127\.0\.0\.1:\d+", shown)
        assert found
        answers = [
            httpx.get(
                f"{found[0]}/api/v1/accounts/verify_credentials",
                headers={"Authorization": f"Bearer {token}"},
                timeout=30,
            ).status_code
            for token in (PASSWORD, "another")
        ]
        assert answers == [200, 401]
        process.terminate()
        rest, err = process.communicate(timeout=30)
    assert PASSWORD not in shown + rest + err


def test_the_tokens_of_several_servers_are_shown_nowhere_and_status_shows_each_source(
    settings: Settings, tmp_path: Path, commands: Commands
) -> None:
    accepted, refused = "token-that-is-accepted", "token-that-is-refused"
    port = free_port()
    simulate = ("simulate", "--port", "0", "--toots", "5")
    with (
        started(*simulate, "--rate", "5", SIMULATOR_TOKEN=accepted) as one,
        started(*simulate, "--domain", "two.example", SIMULATOR_TOKEN="another") as two,
    ):
        hosts = [
            read_until(process.stdout, "MASTODON_API_BASE_URL=").rsplit("http://", 1)[1].strip()
            for process in (one, two)
        ]
        tokens = tmp_path / "tokens"
        tokens.write_text(f"{hosts[0]} {accepted}\n{hosts[1]} {refused}\n")
        tokens.chmod(0o600)
        environment = as_environment(settings) | {
            "MASTODON_API_BASE_URL": ",".join(f"http://{host}" for host in hosts),
            "MASTODON_ACCESS_TOKENS_FILE": str(tokens),
            "MASTODON_SOURCES": f"public,{hosts[0]}/#cats",
        }
        with started("ingest", "--metrics-port", str(port), **environment) as process:
            reported = read_until(
                process.stderr,
                "two.example/public: 127.0.0.1 answered 401",
                "simulator.example/public: connected",
                "simulator.example/hashtag:cats: connected",
            )
            arguments = Path(f"/proc/{process.pid}/cmdline").read_text()
            metrics = _metrics_once_a_post_is_published(port)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=30)
    shown = commands("status", **environment).out
    sources = json.loads(commands("status", "--json", **environment).out)["sources"]

    assert process.returncode == 0, err
    assert {(each["instance"], each["source"], each["state"]) for each in sources} == {
        ("simulator.example", "public", "stopped"),
        ("simulator.example", "hashtag:cats", "stopped"),
        ("two.example", "public", "refused"),
    }
    assert re.search(
        r"(?m)^simulator\.example/public: stopped, last post 20\d\d-.*cursor \d+", shown
    )
    assert re.search(r"(?m)^two\.example/public: refused, no post yet, .*401: it does not", shown)
    assert 'connected{instance="two.example",source="public"} 0.0' in metrics
    with transaction(settings.postgres_url) as connection:
        kept = str(connection.execute("SELECT * FROM masto.ingest_sources").fetchall())
        kept += str(connection.execute("SELECT * FROM masto.stream_gaps").fetchall())
    everything = reported + arguments + metrics + out + err + shown + str(sources) + kept
    assert accepted not in everything
    assert refused not in everything


def _metrics_once_a_post_is_published(port: int) -> str:
    labels = r'instance="simulator\.example",op="upsert",source="public"'
    metrics = ""
    for _ in range(300):
        metrics = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        if re.search(rf"published_total\{{{labels}\}} [1-9]", metrics):
            return metrics
        time.sleep(0.1)
    raise AssertionError(metrics)
