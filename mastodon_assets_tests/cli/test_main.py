"""The command line as an operator meets it: its help, its errors, its exit status, its ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
import pytest
from psycopg.conninfo import conninfo_to_dict

from mastodon_assets.config.settings import Settings, as_environment, load_settings
from mastodon_assets.embedded.stack import Connection
from mastodon_assets.kafka.topics import read_topic
from mastodon_assets.warehouse.database import transaction
from mastodon_assets.warehouse.watermarks import bump_toots_version
from mastodon_assets_tests.support.documents import status
from mastodon_assets_tests.support.ports import free_port

pytestmark = pytest.mark.usefixtures("processes")

COMMANDS = (
    "demo",
    "up",
    "prepare",
    "down",
    "status",
    "ingest",
    "import",
    "stream",
    "replay",
    "rebuild",
    "simulate",
    "ui",
    "migrate",
    "roles",
)
PASSWORD = "s3cr3t"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of each command; its state folder is there too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mastodon_assets.cli.main", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def failure(status: int, *arguments: str, **environment: str) -> str:
    """The one line on stderr of a command that must end with `status`."""
    ended = run(*arguments, **environment)
    assert ended.returncode == status, ended.stdout + ended.stderr
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


def plain(text: str) -> str:
    """Help without its frame, so that a sentence can be found."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


def test_the_help_names_every_command_and_where_to_start() -> None:
    for shown in (run("--help"), run()):
        assert shown.returncode == 0
        assert "Start with: mastodon-assets demo" in plain(shown.stdout)
        assert all(f" {command} " in plain(shown.stdout) for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself_and_each_of_its_options(command: str) -> None:
    shown = run(command, "--help")
    assert shown.returncode == 0
    assert shown.stderr == ""
    assert max(len(line) for line in shown.stdout.splitlines()) <= 80
    options = shown.stdout.split("Options", 2)[-1]
    for line in re.findall(r"│ --[a-z-]+ +(.*?) *│", options):
        assert re.search(r"[A-Za-z]{3,} [A-Za-z0-9]+", line), f"no words: {line}"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["no-such"], "No such command 'no-such' (see: python -m mastodon_assets.cli.main --help)"),
        (["demo", "--toots", "0"], "Invalid value for '--toots'"),
        (["demo", "--toots", "many"], "Invalid value for '--toots'"),
        (["ingest", "--max"], "Option '--max' requires an argument"),
        (["up", "now"], "Got unexpected extra argument"),
        (["status", "--jsno"], "No such option: --jsno"),
        (["ui", "--port", "70000"], "Invalid value for '--port'"),
        (["ingest", "--since", "7w"], "Invalid value: --since 7w: allowed: 7d, 12h, 90m or a"),
        (["ingest", "--metrics-port", "0"], "Invalid value for '--metrics-port'"),
        (["simulate", "--rate", "-1"], "Invalid value for '--rate'"),
        (["simulate", "--from", "x", "--rate", "1"], "a rate makes synthetic toots"),
        (["import", "x", "--instance", "a b"], "Invalid value: 'a b' is no server's name"),
        (["replay", "--from", "3"], "Invalid value: --from and --to are offsets of one partition"),
        (["rebuild", "toots_raw"], "Invalid value: no such table: toots_raw; known: toot_"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(arguments: list[str], told: str) -> None:
    assert failure(2, *arguments).startswith(told)


def test_a_wrong_setting_is_one_line_and_status_2() -> None:
    told = failure(2, "status", NEUTRAL_LOW="2")
    assert told == "NEUTRAL_LOW='2': allowed: at most 1"


def test_a_file_that_is_not_there_is_one_line_and_status_1() -> None:
    for command in ("simulate", "demo"):
        told = failure(1, command, "--from", "missing.ndjson")
        assert told.startswith("cannot read missing.ndjson: No such file")


def test_an_import_of_a_missing_file_is_one_line_and_status_1() -> None:
    assert failure(1, "import", "missing.ndjson") == "missing.ndjson: No such file or directory"


def test_statuses_of_standard_input_are_imported_with_their_counts(
    environment: Settings, folder: Path
) -> None:
    (folder / "two.ndjson").write_text(f"{json.dumps(status('1'))}\nno status\n")
    with (folder / "two.ndjson").open("rb") as two:
        ended = subprocess.run(
            [sys.executable, "-m", "mastodon_assets.cli.main", "import", "-", "--json"],
            stdin=two,
            capture_output=True,
            timeout=120,
        )
    assert ended.returncode == 0, ended.stderr
    counts = json.loads(ended.stdout)
    assert (counts["received"], counts["upserts"], counts["errors"]) == (2, 1, {"not_json": 1})
    assert sum(read_topic(environment, environment.kafka_topic).end.values()) == 1


def test_a_demo_of_a_missing_file_touches_nothing(folder: Path) -> None:
    failure(1, "demo", "--from", "missing.ndjson")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("command", ["ingest", "stream"])
def test_a_command_that_needs_the_stack_says_how_to_start_it(command: str) -> None:
    assert failure(2, command).startswith("no PostgreSQL is known; run: mastodon-assets up")


@pytest.mark.parametrize("command", ["ingest", "stream"])
def test_after_down_a_command_says_how_to_start_the_stack(command: str, folder: Path) -> None:
    leave_connection(folder)
    told = failure(1, command)
    assert told.startswith("no connection to PostgreSQL (")
    assert "run: mastodon-assets up" in told
    assert PASSWORD not in told


def leave_connection(folder: Path) -> None:
    """The state folder as `down` leaves it: addresses at which nothing listens."""
    home = folder / ".mastodon_assets"
    home.mkdir()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    url = f"postgresql://mastodon:{PASSWORD}@127.0.0.1:{port}/mastodon"
    text = json.dumps({"kafka_bootstrap_servers": f"127.0.0.1:{port}", "postgres_url": url})
    (home / "connection.json").write_text(text)


def test_in_an_empty_folder_nothing_runs_and_nothing_is_made(folder: Path) -> None:
    for arguments in (["status"], ["status", "--json"], ["down"], ["down", "--wipe"]):
        ended = run(*arguments)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert list(folder.iterdir()) == []


def test_the_status_in_an_empty_folder_says_what_to_do() -> None:
    lines = [" ".join(line.split()) for line in run("status").stdout.splitlines()]
    assert lines == [
        "Kafka stopped not running",
        "PostgreSQL stopped not running",
        "no PostgreSQL is known; run: mastodon-assets up (or set DATABASE_URL)",
    ]


def test_the_status_after_down_says_what_to_do_without_the_password(folder: Path) -> None:
    leave_connection(folder)
    shown = run("status")
    assert shown.returncode == 0
    assert "run: mastodon-assets up" in shown.stdout
    assert PASSWORD not in shown.stdout + shown.stderr
    told = json.loads(run("status", "--json").stdout)
    assert [service["state"] for service in told["services"]] == ["stopped", "stopped"]
    assert told["pipeline"] is None
    assert "run: mastodon-assets up" in told["problem"]


def test_the_status_says_nothing_of_a_stack_where_both_servers_are_ones_own(
    settings: Settings,
) -> None:
    ended = run(
        "status",
        "--json",
        KAFKA_BOOTSTRAP_SERVERS=settings.kafka_servers,
        DATABASE_URL=settings.postgres_url.get_secret_value(),
    )
    assert json.loads(ended.stdout)["services"] == []


def test_the_status_counts_what_the_tables_lack(
    settings: Settings, produce: Callable[..., None]
) -> None:
    produce([b"garbage"] * 3)
    with transaction(settings.postgres_url) as connection:
        bump_toots_version(connection)
    told = json.loads(run("status", "--json", **as_environment(settings)).stdout)
    assert told["problem"] is None
    assert told["pipeline"] == {
        "messages_in_kafka": 3,
        "messages_ahead_of_tables": 3,
        "charts_are_current": False,
        "champion": "none",
    }
    shown = run("status", **as_environment(settings)).stdout
    assert re.search(r"messages ahead of tables +3 *\n", shown)
    assert re.search(r"charts are current +no *\n", shown)


def test_a_stream_that_is_caught_up_ends_with_a_count(settings: Settings) -> None:
    ended = run("stream", "--until-caught-up", **as_environment(settings))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("0 messages in 0 batches\n")


def test_no_output_holds_the_password(stack: Connection, settings: Settings) -> None:
    password = conninfo_to_dict(stack.postgres_url)["password"]
    assert isinstance(password, str)
    environment = as_environment(settings)
    wrong = environment["DATABASE_URL"].replace("/test_", "/no_such_")
    for arguments, changed in (
        (["status"], {}),
        (["status"], {"DATABASE_URL": wrong}),
        (["stream", "--until-caught-up"], {"DATABASE_URL": wrong}),
        (["stream", "--until-caught-up"], {"KAFKA_TOPIC": "no_such"}),
        (["ingest"], {"DATABASE_URL": wrong.replace("postgresql:", "mysql:")}),
    ):
        ended = run(*arguments, **{**environment, **changed})
        assert "Traceback" not in ended.stderr
        assert password not in ended.stdout + ended.stderr


def test_a_taken_port_is_refused_before_the_web_page_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert failure(2, "ui", "--port", str(port)).startswith(f"port {port} is taken")
        assert failure(1, "simulate", "--port", str(port)).startswith("cannot listen on 127.0.0.1")


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """The command while it runs; killed at the end, or when it hangs."""
    process = subprocess.Popen(
        # From a shell's background, SIGINT would be inherited as ignored.
        [
            "env",
            "--default-signal=INT",
            sys.executable,
            "-m",
            "mastodon_assets.cli.main",
            *arguments,
        ],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(90, process.kill)
    watchdog.start()
    try:
        yield process
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def read_until(stream: IO[str] | None, *wanted: str) -> str:
    assert stream is not None
    read = ""
    while not all(each in read for each in wanted):
        line = stream.readline()
        assert line, f"ended after: {read}"
        read += line
    return read


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_the_simulator_ends_in_good_order(sent: signal.Signals) -> None:
    with started("simulate", "--port", "0", "--toots", "5") as process:
        shown = read_until(process.stdout, "MASTODON_ACCESS_TOKEN=")
        found = re.search(r"(?m)^MASTODON_API_BASE_URL=(http://127\.0\.0\.1:\d+)$", shown)
        assert found
        assert httpx.get(f"{found[1]}/api/v2/instance", timeout=30).status_code == 200
        process.send_signal(sent)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")


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


def test_prepare_makes_topics_and_tables_on_servers_of_ones_own_and_does_it_twice(
    stack: Connection, settings: Settings
) -> None:
    environment = as_environment(
        settings.model_copy(
            update={"kafka_topic": "prepared_stream", "kafka_errors_topic": "prepared_errors"}
        )
    )
    for _ in range(2):
        ended = run("prepare", **environment)
        assert ended.returncode == 0, ended.stderr
        assert "@" not in ended.stdout
    for topic in ("prepared_stream", "prepared_errors"):
        assert (
            len(
                read_topic(
                    load_settings(kafka_bootstrap_servers=stack.kafka_bootstrap_servers), topic
                ).end
            )
            == 4
        )


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_the_ingester_ends_in_good_order_with_its_counts(
    settings: Settings, sent: signal.Signals
) -> None:
    with started("simulate", "--port", "0", "--toots", "5", "--rate", "5") as simulator:
        shown = read_until(simulator.stdout, "MASTODON_ACCESS_TOKEN=")
        server = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        environment = {**as_environment(settings), **server}
        with started("ingest", **environment) as process:
            read_until(process.stderr, "connected")
            process.send_signal(sent)
            out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert re.search(r"received +\d", out)


def test_the_tokens_of_several_servers_are_shown_nowhere_and_status_shows_each_source(
    settings: Settings, tmp_path: Path
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
            told = read_until(
                process.stderr,
                "two.example/public: 127.0.0.1 answered 401",
                "simulator.example/public: connected",
                "simulator.example/hashtag:cats: connected",
            )
            arguments = Path(f"/proc/{process.pid}/cmdline").read_text()
            metrics = httpx.get(f"http://127.0.0.1:{port}/metrics").text
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=30)
    shown = run("status", **environment).stdout
    sources = json.loads(run("status", "--json", **environment).stdout)["sources"]

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
    everything = told + arguments + metrics + out + err + shown + str(sources) + kept
    assert accepted not in everything
    assert refused not in everything


def test_an_interrupted_command_ends_without_a_traceback() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.settimeout(60)
        url = f"postgresql://u:{PASSWORD}@127.0.0.1:{silent.getsockname()[1]}/d"
        with started("status", DATABASE_URL=url) as process:
            # Now it waits for an answer that does not come.
            accepted, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
            accepted.close()
    assert (process.returncode, err) == (130, "")
    assert "Traceback" not in out


def test_the_stack_comes_up_goes_down_and_is_wiped(folder: Path) -> None:
    home = folder / ".mastodon_assets"
    try:
        first = run("up")
        assert first.returncode == 0, first.stderr
        connection = json.loads((home / "connection.json").read_text())
        password = str(conninfo_to_dict(connection["postgres_url"])["password"])
        assert connection["kafka_bootstrap_servers"] in first.stdout
        assert password not in first.stdout + first.stderr
        again = run("up")
        assert (again.returncode, again.stdout) == (0, first.stdout)
        running = json.loads(run("status", "--json").stdout)
        assert [service["state"] for service in running["services"]] == ["running", "running"]
        assert running["problem"] is None
        assert failure(2, "demo").startswith(f"MASTODON_ASSETS_HOME={home} contains something")
        assert run("down").returncode == 0
        assert (home / "connection.json").exists()
        assert failure(1, "stream").startswith("no connection to PostgreSQL")
    finally:
        wiped = run("down", "--wipe")
    assert wiped.returncode == 0, wiped.stderr
    assert list(home.iterdir()) == []
