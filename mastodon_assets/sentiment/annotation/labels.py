"""Labels by people: what waits for a coder, storing a label, and the label that counts.

What belongs here: rows of `annotations`. A label counts only while the post has the text that was
labelled. Coders never see the model's label, nor that of another coder unless they settle a
disagreement.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import Connection, sql
from psycopg.rows import class_row
from pydantic import SecretStr

from mastodon_assets.errors import SettingsError
from mastodon_assets.warehouse.database import PERSON_SECONDS, transaction

LABELS = ("positive", "neutral", "negative")
UNSURE = "unsure"
_CODER = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,39}\Z")

_HASH = sql.SQL("sha256(convert_to(r.content_txt, 'UTF8'))")
# The first part of the declared language of `toots_raw r`.
LANGUAGE = sql.SQL("lower(split_part(replace(r.lang, '_', '-'), '-', 1))")
_POSTS = sql.SQL(
    """
SELECT s.id, {language} AS language, s.drawn_at, s.is_training, s.stratum, s.stratum_posts
  FROM masto.annotation_sample s JOIN masto.toots_raw r USING (id)
 ORDER BY s.drawn_at, s.place
"""
).format(language=LANGUAGE)
_LABELS = sql.SQL(
    """
SELECT a.id, a.coder, a.label, a.settles, a.labelled_at
  FROM masto.annotations a JOIN masto.toots_raw r USING (id)
 WHERE a.text_hash = {hash}
 ORDER BY a.labelled_at
"""
).format(hash=_HASH)
_TEXT = sql.SQL(
    """
SELECT r.id, {language} AS language, r.content_txt AS text, r.is_sensitive, {hash} AS text_hash
  FROM masto.annotation_sample s JOIN masto.toots_raw r USING (id)
 WHERE s.id = %s
"""
).format(hash=_HASH, language=LANGUAGE)
_STORE = sql.SQL(
    """
INSERT INTO masto.annotations (id, coder, label, settles, text_hash)
SELECT s.id, %(coder)s, %(label)s, %(settles)s, %(text_hash)s
  FROM masto.annotation_sample s JOIN masto.toots_raw r USING (id)
 WHERE s.id = %(id)s AND {hash} = %(text_hash)s
    ON CONFLICT (id, coder) DO UPDATE
   SET label = excluded.label, settles = excluded.settles, text_hash = excluded.text_hash,
       labelled_at = clock_timestamp()
"""
).format(hash=_HASH)


@dataclass(frozen=True)
class SampledPost:
    """A drawn post without its text; `language` is the first part of the declared one."""

    id: int
    language: str
    drawn_at: datetime
    is_training: bool
    stratum: str
    stratum_posts: int


@dataclass(frozen=True)
class Label:
    """A label for the text that the post has now; `settles` if it settles a disagreement."""

    id: int
    coder: str
    label: str
    settles: bool
    labelled_at: datetime


@dataclass(frozen=True)
class ShownPost:
    """A drawn post as a coder sees it."""

    id: int
    language: str
    text: str
    is_sensitive: bool
    text_hash: bytes


@dataclass(frozen=True)
class Sample:
    """All drawn posts in the order in which coders see them, and their labels by post."""

    posts: Sequence[SampledPost]
    labels: Mapping[int, Sequence[Label]]

    def labels_of(self, post: SampledPost) -> Sequence[Label]:
        """Return the labels of a post, the oldest first."""
        return self.labels.get(post.id, ())


def coder_name(name: str) -> str:
    """Return the name of a coder.

    Raises:
        SettingsError: It is no name.
    """
    if not _CODER.match(name):
        raise SettingsError(
            f"--coder {name!r}: allowed: up to 40 of a-z, A-Z, 0-9, dot, underscore and hyphen,"
            " such as ada"
        )
    return name


def language_codes(languages: str | None) -> list[str] | None:
    """Return the codes in a list with commas, such as `en,de`; None if there are none.

    Raises:
        SettingsError: One of them is no code.
    """
    if not languages:
        return None
    names = [name.strip().lower() for name in languages.split(",")]
    if not all(name.isascii() and name.isalpha() for name in names):
        raise SettingsError(f"--languages {languages!r}: give language codes such as en,de")
    return names


def read_sample(connection: Connection[Any]) -> Sample:
    """Read all drawn posts and the labels that count."""
    with connection.cursor(row_factory=class_row(SampledPost)) as posts:
        found = posts.execute(_POSTS).fetchall()
    by_post: dict[int, list[Label]] = defaultdict(list)
    with connection.cursor(row_factory=class_row(Label)) as labels:
        for label in labels.execute(_LABELS):
            by_post[label.id].append(label)
    return Sample(found, by_post)


def given(labels: Iterable[Label]) -> list[Label]:
    """Return what coders may agree on: no unsure labels, none that settle."""
    return [each for each in labels if each.label != UNSURE and not each.settles]


def decided(labels: Iterable[Label]) -> str | None:
    """Return the label that counts for a post, None if there is none.

    It is the newest one that settles, or else the one that most of at least two coders gave.
    """
    labels = list(labels)
    settling = [each.label for each in labels if each.settles and each.label != UNSURE]
    if settling:
        return settling[-1]
    counts = Counter(each.label for each in given(labels))
    if counts.total() < 2:
        return None
    label, count = counts.most_common(1)[0]
    return label if 2 * count > counts.total() else None


def is_disputed(labels: Iterable[Label]) -> bool:
    """Return whether coders gave different labels and none of them counts."""
    labels = list(labels)
    return len(given(labels)) > 1 and decided(labels) is None


def waiting_for(
    sample: Sample, coder: str, *, languages: Collection[str] | None, settles: bool
) -> list[int]:
    """Return the ids of the posts that a coder has still to label, in the order of the draws.

    Args:
        sample: All drawn posts.
        coder: Name of the coder.
        languages: First parts of languages; None for all.
        settles: Whether to settle disagreements: only posts on which others disagree.
    """
    return [
        post.id
        for post in sample.posts
        if (languages is None or post.language in languages)
        and all(each.coder != coder for each in sample.labels_of(post))
        and (not settles or is_disputed(sample.labels_of(post)))
    ]


def read_post(connection: Connection[Any], id_: int) -> ShownPost | None:
    """Read a drawn post; None if it was deleted."""
    with connection.cursor(row_factory=class_row(ShownPost)) as posts:
        return posts.execute(_TEXT, (id_,)).fetchone()


def store_label(
    postgres_url: SecretStr,
    id_: int,
    text_hash: bytes,
    coder: str,
    label: str,
    *,
    settles: bool = False,
) -> bool:
    """Store a coder's label, in place of an earlier one of the same coder.

    Args:
        postgres_url: DATABASE_URL, of a role that writes labels.
        id_: The post.
        text_hash: Hash of the text that was shown.
        coder: Name of the coder.
        label: One of `LABELS`, or unsure.
        settles: Whether it settles a disagreement.

    Returns:
        Whether it was stored: not if the post was deleted or edited since it was read.
    """
    with transaction(postgres_url, max_seconds=PERSON_SECONDS) as connection:
        try:
            stored = connection.execute(
                _STORE,
                {
                    "id": id_,
                    "coder": coder,
                    "label": label,
                    "settles": settles,
                    "text_hash": text_hash,
                },
            )
        except psycopg.errors.ForeignKeyViolation:
            connection.rollback()
            return False
        return stored.rowcount == 1


def remove_coder(postgres_url: SecretStr, coder: str) -> int:
    """Remove all labels of a coder; return their number."""
    with transaction(postgres_url) as connection:
        return connection.execute(
            sql.SQL("DELETE FROM masto.annotations WHERE coder = %s"), (coder,)
        ).rowcount
