"""The pages are current, and what they link to exists."""

import re
from pathlib import Path

import pytest

from mastodon_assets.config.settings import Settings
from mastodon_assets_tests.docs.reference import PAGES, REFERENCE, ROOT, rendered

_PAGES = sorted(
    path
    for pattern in ("*.md", ".github/**/*.md", "docker/*.md", "mastodon_assets*/**/*.md")
    for path in ROOT.glob(pattern)
    if ".venv" not in path.parts
)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def _named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_generated_page_is_current(name: str) -> None:
    written = (REFERENCE / name).read_text(encoding="utf-8")
    assert written == rendered(name), "python -m mastodon_assets_tests.docs.reference --write"


def test_every_setting_is_described() -> None:
    rows = rendered("settings.md").splitlines()
    undescribed = [row for row in rows if re.fullmatch(r"\| `[A-Z_]+` \| .*\|  \|", row)]
    assert undescribed == []


def test_nothing_says_to_install_this_package_from_an_index() -> None:
    """It is in none."""
    texts = [*_PAGES, *(ROOT / "mastodon_assets").rglob("*.py")]
    wrong = re.compile(r"install[^\n&]*\bmastodon[-_]assets\b(?![/.])")
    found = [
        f"{_named(path)}: {line.strip()}"
        for path in texts
        for line in path.read_text(encoding="utf-8").splitlines()
        if "pip" in line and wrong.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("page", _PAGES, ids=_named)
def test_what_a_page_links_to_exists(page: Path) -> None:
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{_named(page)}: {target}"
        if anchor and linked.suffix == ".md":
            assert anchor in _anchors(linked), f"{_named(page)}: {target}"


@pytest.mark.parametrize("page", _PAGES, ids=_named)
def test_the_folders_and_modules_a_page_names_exist(page: Path) -> None:
    package = ROOT / "mastodon_assets"
    for name in _CODE.findall(page.read_text(encoding="utf-8")):
        if (
            re.fullmatch(r"[a-z_]+/[a-z_/]*(\.py|\.json|/)?", name)
            and (package / name.split("/")[0]).is_dir()
        ):
            assert (package / name).exists(), f"{_named(page)}: {name}"


def test_the_pages_name_only_settings_that_exist() -> None:
    settings = {name.upper() for name in Settings.model_fields}
    pattern = re.compile(r"\b(?:MASTODON|KAFKA|SENTIMENT|STREAM|FILTER|REFRESH|SPARK)_[A-Z_]+\b")
    others = {"SPARK_CONF_DIR", "SPARK_EXECUTOR_MEMORY", "SPARK_LOCAL_DIRS", "SPARK_LOCAL_IP"}
    for page in (ROOT / "mastodon_assets" / "docs").rglob("*.md"):
        named = set(pattern.findall(page.read_text(encoding="utf-8")))
        assert named - settings - others == set(), _named(page)


def _anchors(page: Path) -> set[str]:
    headings = _HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
