"""The field's words in names, and plain English in what people read."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

_PROJECT = Path(__file__).parents[1]
_PACKAGE = _PROJECT / "mastodon_assets"
# Posts of a simulated server and sentences for models: their words are data.
_DATA = {
    "simulator/phrases.py",
    "sentiment/evaluation/behavioural_suites.py",
}
# A phrase that a reader stumbles over, and what to write.
_PHRASES = {
    r"\bstands? in\b": "is in, see",
    r"\bstands? (behind|before|beside|there)\b": "is",
    r"\banew\b": "again, re-",
    r"\bso many\b": "that many",
    r"\b(tells|told|telling|tell of)\b": "log, report, say",
    r"\b(of|by) which\b": "a sentence of its own",
    r"\bbeside\b": "next to, with",
    r"\b(rows?|posts?|labels|times?|messages?|requests?|lines?) an? "
    r"(day|hour|minute|second|month|post|label|message|user|row|chart|file|source|server)\b": "per",
    r"\bfor want of\b": "without",
    r"\bnought\b": "zero",
    r"\bground for\b": "reason for",
}
# Words of a private vocabulary: no name of a module, class or function has one.
_PRIVATE = {
    "anew", "arrivals", "blame", "brief", "composing", "covers", "disturbed", "faces", "grams",
    "intake", "journal", "lessons", "lettering", "oddity", "past", "patient", "peer", "pieces",
    "portrait", "praise", "told", "together", "storm", "usual", "winners", "withdrawn",
}  # fmt: skip
# Names that are one of these and nothing else.
_PRIVATE_ALONE = {
    "count_in", "count_out", "dead", "enter", "fresh", "holder", "letters", "life",
    "locations", "marks", "note_moved", "population", "reaches_back", "reception",
    "repairs", "route", "silence", "sink", "source_run", "suites", "wire",
}  # fmt: skip


def _texts() -> Iterator[Path]:
    for pattern in ("*.py", "*.sql", "*.md", "*.properties", "*.yaml"):
        yield from _PACKAGE.rglob(pattern)
    yield from _PROJECT.glob("*.md")
    yield from (_PROJECT / ".github").glob("*.md")
    yield from (_PROJECT / ".env.example", _PROJECT / "mastodon_assets_tests" / "README.md")
    yield from (path for path in (_PROJECT / "docker").iterdir() if path.is_file())


def _name(path: Path) -> str:
    return path.relative_to(_PROJECT).as_posix()


def _is_text(path: Path) -> bool:
    return path.is_file() and _name(path).removeprefix("mastodon_assets/") not in _DATA


def test_no_phrase_is_one_that_a_reader_stumbles_over() -> None:
    found = [
        f"{_name(path)}:{number}: {match.group()!r}, better: {better}"
        for path in filter(_is_text, sorted(_texts()))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for phrase, better in _PHRASES.items()
        if (match := re.search(phrase, line, re.IGNORECASE))
    ]
    assert found == []


def _names(path: Path) -> Iterator[str]:
    yield path.stem
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def _words(name: str) -> set[str]:
    """The words of a name in either case: `_ReadAll`, `read_all`."""
    return set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).strip("_").lower().split("_"))


def test_names_are_the_fields_words() -> None:
    found = [
        f"{_name(path)}: {name}"
        for path in sorted(_PACKAGE.rglob("*.py"))
        if path.relative_to(_PACKAGE).as_posix() not in _DATA
        for name in _names(path)
        if _words(name) & _PRIVATE or name.removeprefix("_").lower() in _PRIVATE_ALONE
    ]
    assert found == []
