"""A corpus of our own in Sentiment140's format, for trainings that take seconds."""

import gzip
from pathlib import Path


def write_corpus(path: Path) -> Path:
    """Write 200 texts of each class, compressed."""
    lines = [
        f'"{target}","1","d","q","u","{word} day {number} so {word}"'
        for target, word in ((0, "sad"), (4, "happy"))
        for number in range(200)
    ]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path
