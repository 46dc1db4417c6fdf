"""SIGKILL at random moments, round after round: the tables stay those of a run without faults.

    python -m mastodon_assets_tests.benchmarks.faults --rounds 100 --json faults.json

Each round sends messages (posts, edits, deletes, garbage) while a part works on them, kills one at
a random moment, lets it come back, and compares all tables, row for row, with those of a drain
without faults. Parts: the process `mastodon-assets stream`, a run of the asset `toots_raw`,
the broker, the database.
"""

import argparse
import json
import random
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import Popen
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from mastodon_assets.config.settings import load_settings
from mastodon_assets.embedded import kafka, postgres
from mastodon_assets.spark.session import build_session
from mastodon_assets_tests.support.fault_platform import ASSET_RUN, Platform, end, platform_in

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PARTS = ("database", "stream", "broker", "asset run")
_MESSAGES = 60
_SENDING_SECONDS = 1.5
_SECONDS_OF_ASSET_RUN = 20


@dataclass
class Round:
    """What was killed, when, and what it changed.

    `killed_at` counts seconds from the first message, or from the start of the asset run;
    `stored_before` of `messages` were in the tables a moment before.
    """

    part: str
    killed_at: float
    stored_before: int
    messages: int
    seconds: float
    differences: list[str]


def main() -> None:
    arguments = _arguments()
    session = build_session(load_settings(spark_master="local[2]"))
    with tempfile.TemporaryDirectory() as folder, platform_in(Path(folder)) as platform:
        rounds = run_rounds(
            platform,
            session,
            arguments.rounds,
            random.Random(arguments.seed),
            report=print,
            only=arguments.only or PARTS,
        )
    session.stop()
    _print(rounds)
    if arguments.json:
        document = {"seed": arguments.seed, "rounds": [asdict(each) for each in rounds]}
        arguments.json.write_text(json.dumps(document, indent=2))
    if any(each.differences for each in rounds):
        raise SystemExit(1)


def run_rounds(
    platform: Platform,
    session: "SparkSession",
    rounds: int,
    generator: random.Random,
    *,
    report: Callable[[str], None],
    only: Sequence[str] = PARTS,
) -> list[Round]:
    """As many rounds of each part of `only` as of the others; what each of them came to."""
    parts = [only[number % len(only)] for number in range(rounds)]
    generator.shuffle(parts)
    # An asset run leaves the reading to a stream: its rounds come last, when there is none.
    of_asset_runs = parts.count("asset run")
    made = []

    def note(made_round: Round) -> None:
        made.append(made_round)
        report(f"round {len(made)}: {made_round}")

    platform.send(_MESSAGES)
    stream = platform.start()
    try:
        stream = _follow(platform, stream)
        for part in (part for part in parts if part != "asset run"):
            started = time.monotonic()
            stream, before, killed_at = _disturb_stream(platform, stream, part, generator)
            stream = _follow(platform, stream)
            note(_ended(platform, session, part, killed_at, before, started))
    finally:
        end(stream)
    # To know how long one takes costs a run, which a few rounds are not worth.
    length = _seconds_of_asset_run(platform) if of_asset_runs > 1 else _SECONDS_OF_ASSET_RUN
    for _ in range(of_asset_runs):
        started = time.monotonic()
        before, killed_at = _disturb_asset_run(platform, generator.uniform(0.3, 1.0) * length)
        platform.finish(session)
        note(_ended(platform, session, "asset run", killed_at, before, started))
    return made


def _follow(platform: Platform, stream: "Popen[bytes]") -> "Popen[bytes]":
    """Wait until all is stored, as a supervisor: a stream that found no server at its start ends,
    and is started again.
    """
    while not platform.waits_for(stream):
        stream = platform.start()
    return stream


def _disturb_stream(
    platform: Platform, stream: "Popen[bytes]", part: str, generator: random.Random
) -> "tuple[Popen[bytes], int, float]":
    sender = threading.Thread(target=_send_slowly, args=(platform,))
    sender.start()
    killed_at = generator.uniform(0, _SENDING_SECONDS)
    time.sleep(killed_at)
    before = platform.stored()
    if part == "stream":
        end(stream)
        stream = platform.start()
    else:
        platform.kill_server(kafka.find if part == "broker" else postgres.find)
    sender.join()
    return stream, before, killed_at


def _send_slowly(platform: Platform) -> None:
    steps = 6
    for _ in range(steps):
        platform.send(_MESSAGES // steps)
        time.sleep(_SENDING_SECONDS / steps)


def _disturb_asset_run(platform: Platform, seconds: float) -> tuple[int, float]:
    platform.send(_MESSAGES)
    started = time.monotonic()
    with platform.running(ASSET_RUN) as process:
        while process.poll() is None and time.monotonic() < started + seconds:
            time.sleep(0.05)
        before = platform.stored()
        killed_at = time.monotonic() - started
    return before, killed_at


def _seconds_of_asset_run(platform: Platform) -> float:
    platform.send(_MESSAGES)
    started = time.monotonic()
    with platform.running(ASSET_RUN) as process:
        assert process.wait(300) == 0, platform.log_text()[-2000:]
    return time.monotonic() - started


def _ended(
    platform: Platform,
    session: "SparkSession",
    part: str,
    killed_at: float,
    before: int,
    started: float,
) -> Round:
    return Round(
        part=part,
        killed_at=round(killed_at, 2),
        stored_before=before,
        messages=platform.stored(),
        seconds=round(time.monotonic() - started, 1),
        differences=platform.differences(session),
    )


def _print(rounds: list[Round]) -> None:
    table = Table("killed", "rounds", "with work in flight", "mean s", "tables differ", box=None)
    for part in PARTS:
        own = [each for each in rounds if each.part == part]
        if own:
            in_flight = sum(each.stored_before < each.messages for each in own)
            mean = sum(each.seconds for each in own) / len(own)
            differ = sum(bool(each.differences) for each in own)
            table.add_row(part, *map(str, (len(own), in_flight)), f"{mean:.1f}", str(differ))
    Console().print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
