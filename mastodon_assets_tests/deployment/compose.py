"""docker/compose.yaml as Compose reads it: variables filled in, merges done, profiles chosen.

What belongs here: reading. Compose's own rules are those of its specification (interpolation,
profiles, depends_on).
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[2]
DOCKER = PROJECT / "docker"
COMPOSE_FILE = DOCKER / "compose.yaml"
# Images that are not ours; their services are checked as far as a file can be.
FOREIGN = ("kafka", "postgres")

_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?:(?P<operator>:[-?])(?P<rest>[^}]*))?\})")

Service = Mapping[str, Any]


class VariableMissingError(Exception):
    """A variable that compose.yaml demands (`${NAME:?what to do}`) is not set."""


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of an .env file with plain `NAME=value` lines."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def read_services(variables: Mapping[str, str]) -> dict[str, Service]:
    """The services of the profile in COMPOSE_PROFILES, by name, in the order of the file.

    Raises: VariableMissingError.
    """
    document = _filled_in(yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8")), variables)
    chosen = set(variables["COMPOSE_PROFILES"].split(","))
    return {
        name: service
        for name, service in document["services"].items()
        if not service.get("profiles") or chosen & set(service["profiles"])
    }


def read_all_services() -> dict[str, Service]:
    """The services of all profiles, with variables as they are in the file."""
    services: dict[str, Service] = yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8"))[
        "services"
    ]
    return services


def required_variables() -> set[str]:
    """The names that must be set, or Compose refuses the file."""
    text = COMPOSE_FILE.read_text(encoding="utf-8")
    return {m["name"] for m in _VARIABLE.finditer(text) if m["operator"] == ":?"}


def secrets_of(service: Service) -> dict[str, str]:
    """The secret that the service finds in each file of /run/secrets, by the file's name."""
    listed = [
        {"source": each, "target": each} if isinstance(each, str) else each
        for each in service.get("secrets", [])
    ]
    return {each["target"]: each["source"] for each in listed}


def declared_secrets() -> dict[str, str]:
    """The file of each secret, as written in compose.yaml."""
    document = yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8"))
    return {name: secret["file"] for name, secret in document["secrets"].items()}


def read_secret_files(folder: Path) -> dict[str, str]:
    """The values that make-env wrote, by file; those that nobody has filled are left out."""
    values = {path.name: path.read_text(encoding="utf-8").strip() for path in folder.iterdir()}
    return {name: value for name, value in values.items() if value}


def in_order_of_start(services: Mapping[str, Service]) -> Iterator[str]:
    """Names so that each comes after those it depends on."""
    placed: set[str] = set()
    while len(placed) < len(services):
        ready = [
            name
            for name, service in services.items()
            if name not in placed and placed >= set(service.get("depends_on", {}))
        ]
        assert ready, f"services that wait for each other: {sorted(set(services) - placed)}"
        placed.update(ready)
        yield from ready


def _filled_in(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled_in(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled_in(item, variables) for item in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _value(match, variables), value)
    return value


def _value(match: "re.Match[str]", variables: Mapping[str, str]) -> str:
    if match[0] == "$$":
        return "$"
    value = variables.get(match["name"], "")
    if value:
        return value
    if match["operator"] == ":?":
        raise VariableMissingError(f"{match['name']}: {match['rest']}")
    return match["rest"] or ""
