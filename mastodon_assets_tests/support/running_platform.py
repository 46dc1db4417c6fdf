"""`mastodon-assets run` as a process, for benchmarks of the whole platform."""

import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console

from mastodon_assets_tests.support.commands import PROGRAM, logged
from mastodon_assets_tests.support.ports import free_port


@contextmanager
def platform_running(folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Run the platform in `folder`; print the end of its log if the block fails."""
    log = folder / "run.log"
    command = [*PROGRAM, "run", "--port", str(free_port())]
    with logged(command, folder, environment, log) as process:
        try:
            yield
        except BaseException:
            Console(stderr=True).print(log.read_text(errors="replace")[-5000:], markup=False)
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
