"""The bill of materials (SBOM) of all that an installation brings along, in CycloneDX's format.

What belongs here: writing it. Scanners of vulnerabilities such as osv-scanner, grype and
Dependency-Track read it. `.ci/run` writes it by `python -m mastodon_assets_tests.docs.sbom FILE`.
"""

import argparse
import tomllib
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6

from mastodon_assets_tests.docs.licences import ROOT, Part, jars, python_packages


def bill_of_materials() -> str:
    """Return the platform with its packages and jars as a JSON text of CycloneDX 1.6."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    us = Component(
        type=ComponentType.APPLICATION,
        name=project["name"],
        version=project["version"],
        bom_ref=project["name"],
        licenses=[LicenseFactory().make_from_string(project["license"])],
    )
    components = [_component(part) for part in (*python_packages(), *jars())]
    bom = Bom(components=components)
    bom.metadata.component = us
    bom.register_dependency(us, [each for each in components if each.scope is not _NOT_SHIPPED])
    return JsonV1Dot6(bom).output_as_string(indent=2)


_NOT_SHIPPED = ComponentScope.EXCLUDED
_SCOPES = {
    "platform": ComponentScope.REQUIRED,
    "extra": ComponentScope.OPTIONAL,
    "development": _NOT_SHIPPED,
}


def _component(part: Part) -> Component:
    return Component(
        type=ComponentType.LIBRARY,
        name=part.name,
        group=part.purl.namespace,
        version=part.version,
        purl=part.purl,
        bom_ref=part.purl.to_string(),
        scope=_SCOPES[part.use],
        licenses=[LicenseFactory().make_from_string(part.licence)],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=part.sha256)] if part.sha256 else [],
    )


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="The file to write.")
    file: Path = parser.parse_args().file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(bill_of_materials() + "\n", encoding="utf-8")
    print(f"written: {file}")


if __name__ == "__main__":
    main()
