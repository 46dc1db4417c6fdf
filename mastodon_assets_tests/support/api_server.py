"""A real API server of Kubernetes on loopback, with etcd, and a stand-in for its nodes.

What belongs here: starting both programs, and running the pods of Spark's executors as processes.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme

from mastodon_assets_tests.support.ports import free_port
from mastodon_assets_tests.support.programs import PROGRAMS

NAMESPACE = "mastodon-assets"
_AUDIT = '{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}'
_SECONDS = 120


def programs() -> dict[str, str]:
    """The paths of `etcd` and `kube-apiserver` that are found in PATH."""
    found = {name: shutil.which(name) for name in ("etcd", "kube-apiserver")}
    return {name: path for name, path in found.items() if path}


class ApiServer:
    """A running API server; `kubectl` as its administrator."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"https://127.0.0.1:{port}"
        self.ca = folder / "ca.pem"
        self.audit = folder / "audit.log"

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Its standard output and error; AssertionError if it fails."""
        ended = self.try_kubectl(*arguments, stdin=stdin)
        assert ended.returncode == 0, ended.stdout
        return ended.stdout

    def try_kubectl(
        self, *arguments: str, stdin: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """The ended process, with its error output in `stdout`."""
        access = ["--server", self.url, "--certificate-authority", str(self.ca)]
        return subprocess.run(
            [PROGRAMS / "kubectl", "--kubeconfig=/dev/null", *access, "--token=admin", *arguments],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
        )

    def requests_of(self, user: str) -> set[tuple[str, str, int]]:
        """Verb, resource and status of all that a user asked for."""
        events = map(json.loads, self.audit.read_text(encoding="utf-8").splitlines())
        return {
            (event["verb"], event["objectRef"]["resource"], event["responseStatus"]["code"])
            for event in events
            if event["user"]["username"] == user and event["stage"] == "ResponseComplete"
        }


@contextmanager
def api_server(folder: Path) -> Iterator[ApiServer]:
    """An empty API server with RBAC and Pod Security, until the end of the block."""
    port, client, peer = free_port(), free_port(), free_port()
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    trustme.CA().private_key_pem.write_to_path(folder / "accounts.pem")
    (folder / "tokens.csv").write_text("admin,admin,admin,system:masters\n", encoding="utf-8")
    (folder / "audit.yaml").write_text(_AUDIT, encoding="utf-8")
    found = programs()
    etcd = [
        found["etcd"],
        f"--data-dir={folder / 'etcd'}",
        *(f"--{way}-client-urls=http://127.0.0.1:{client}" for way in ("listen", "advertise")),
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-cluster=default=http://127.0.0.1:{peer}",
    ]
    server = [
        found["kube-apiserver"],
        f"--etcd-servers=http://127.0.0.1:{client}",
        # Debian's etcd is too old for it.
        "--feature-gates=WatchList=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={folder / 'server.pem'}",
        f"--tls-private-key-file={folder / 'server.pem'}",
        f"--cert-dir={folder / 'certificates'}",
        "--authorization-mode=RBAC",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'accounts.pem'}",
        f"--service-account-signing-key-file={folder / 'accounts.pem'}",
        "--service-cluster-ip-range=10.96.0.0/24",
        f"--audit-policy-file={folder / 'audit.yaml'}",
        f"--audit-log-path={folder / 'audit.log'}",
    ]
    with (
        _process(etcd, folder / "etcd.log"),
        _process(server, folder / "server.log") as process,
    ):
        started = ApiServer(folder, port)
        deadline = time.monotonic() + _SECONDS
        while started.try_kubectl("get", "--raw=/readyz").returncode != 0:
            log = (folder / "server.log").read_text(encoding="utf-8")
            assert process.poll() is None, log[-2000:]
            assert time.monotonic() < deadline, log[-2000:]
            time.sleep(0.5)
        yield started


@contextmanager
def _process(command: list[str], log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


class ExecutorNode:
    """Runs the pods of Spark's executors as processes of this machine."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        # As they were created.
        self.pods: dict[str, Any] = {}

    def look(self) -> None:
        """Start what is new, end what is gone."""
        listed = json.loads(
            self._server.kubectl("get", "pods", "-n", NAMESPACE, "-l", _EXECUTORS, "-o", "json")
        )
        pods = {pod["metadata"]["name"]: pod for pod in listed["items"]}
        for name in self._processes.keys() - pods.keys():
            _end(self._processes.pop(name))
        for name in pods.keys() - self.pods.keys():
            self.pods[name] = pods[name]
            self._start(pods[name])
            self._say_running(name)

    def close(self) -> None:
        """End all."""
        for process in self._processes.values():
            _end(process)

    def _start(self, pod: Mapping[str, Any]) -> None:
        name = pod["metadata"]["name"]
        container = pod["spec"]["containers"][0]
        fields = {"status.podIP": "127.0.0.1", "metadata.name": name}
        variables = {
            each["name"]: each["value"]
            if "value" in each
            else fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
            for each in container["env"]
        }
        folder = self._folder / name
        folder.mkdir()
        with (folder / "log").open("wb") as output:
            self._processes[name] = subprocess.Popen(
                [*container["command"], *container["args"]],
                cwd=folder,
                env={**os.environ, **variables, "SPARK_LOCAL_DIRS": str(folder)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _say_running(self, name: str) -> None:
        running = {"state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
        status = {
            "phase": "Running",
            "podIP": "127.0.0.1",
            "containerStatuses": [
                {"name": "main", "image": "", "imageID": "", "ready": True, "restartCount": 0}
                | running
            ],
        }
        self._server.kubectl(
            *("patch", "pod", name, "-n", NAMESPACE, "--subresource=status", "--type=merge"),
            *("-p", json.dumps({"status": status})),
        )


_EXECUTORS = "spark-role=executor"
