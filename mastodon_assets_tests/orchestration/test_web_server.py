"""The processes of the web page, started and ended for real."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mastodon_assets.config.settings import Settings, as_environment
from mastodon_assets.orchestration.web_server import WebPageError, serve_web_page
from mastodon_assets_tests.support.ports import free_port
from mastodon_assets_tests.support.web_server import wait_until_up

_ENDS_WITHIN_SECONDS = 20


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ui_in_a_scripts_background_ends_by_either_signal_and_leaves_no_process(
    sent: signal.Signals, settings: Settings, tmp_path: Path
) -> None:
    port = free_port()
    # A shell without job control starts it with SIGINT ignored.
    script = f'"{sys.executable}" -m mastodon_assets.cli.main ui --port {port} & echo $!; wait'
    environment = {**os.environ, **as_environment(settings), "DAGSTER_HOME": str(tmp_path / "runs")}
    log = tmp_path / "ui.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            ["sh", "-c", script],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        ) as shell,
    ):
        assert shell.stdout is not None
        ui = psutil.Process(int(shell.stdout.readline()))
        wait_until_up(f"http://127.0.0.1:{port}", shell, log)
        processes = ui.children(recursive=True)
        ui.send_signal(sent)
        shell.wait(_ENDS_WITHIN_SECONDS)
    assert psutil.wait_procs(processes, timeout=5)[1] == []
    assert "Traceback" not in log.read_text()


@pytest.mark.usefixtures("own_servers")
def test_a_damaged_instance_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("storage: nonsense\n")
    with pytest.raises(WebPageError, match=r"cannot open Dagster's instance in .*: ") as failed:
        serve_web_page(free_port(), environment={**os.environ, "DAGSTER_HOME": str(tmp_path)})
    assert "\n" not in str(failed.value)
