"""`annotate` as coders and researchers meet it."""

import io
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from pydantic import SecretStr

from mastodon_assets.cli import annotate
from mastodon_assets.sentiment.annotation.sample import draw_sample
from mastodon_assets.warehouse.database import transaction
from mastodon_assets_tests.support.commands import Commands, Ended
from mastodon_assets_tests.support.labelled_posts import (
    add_champion,
    add_post,
    empty,
    give_label,
    sample_of,
)

_HELP = "p positive   o neutral   n negative   u unsure   b back   q quit"


@pytest.fixture
def url(database_url: SecretStr, monkeypatch: pytest.MonkeyPatch) -> SecretStr:
    """An empty database, which the commands use."""
    empty(database_url)
    monkeypatch.setenv("DATABASE_URL", database_url.get_secret_value())
    return database_url


@pytest.fixture
def posts(url: SecretStr) -> SecretStr:
    """30 posts with labels of a champion."""
    add_champion(url)
    with transaction(url) as connection:
        for id_ in range(30):
            label = ("positive", "neutral", "negative")[id_ % 3]
            add_post(connection, id_, f"text {id_}", label=label, prob_pos=id_ / 30)
    return url


@pytest.fixture
def label(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Run `annotate label` with keys on standard input, one per line."""

    def run(keys: str, *options: str, coder: str = "ada") -> Ended:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{key}\n" for key in keys)))
        return commands("annotate", "label", "--coder", coder, *options)

    return run


def _labels(url: SecretStr) -> list[tuple[str, str]]:
    """Labels in the order of the draw."""
    sample = sample_of(url)
    return [(each.coder, each.label) for post in sample.posts for each in sample.labels_of(post)]


def test_a_sample_is_shown_by_stratum(commands: Commands, posts: SecretStr) -> None:
    lines = commands("annotate", "sample", "--size", "12").out.splitlines()
    assert lines[:2] == [
        "        2  en, negative, higher half",
        "        2  en, negative, lower half",
    ]
    assert lines[-1] == (
        "12 of 30 posts drawn. Each coder labels them by: mastodon-assets annotate label"
        " --coder NAME"
    )
    as_json = json.loads(commands("annotate", "sample", "--size", "12", "--json").out)
    assert as_json["posts"] == 18
    assert sum(as_json["drawn"].values()) == 12


def test_a_coder_goes_on_where_she_stopped(posts: SecretStr, label: Callable[..., Ended]) -> None:
    draw_sample(posts, 12)
    first = label("ponq")
    assert first.status == 0
    assert first.out.splitlines()[-1] == "ada: 3 labelled now, 9 left"
    assert _labels(posts) == [("ada", "positive"), ("ada", "neutral"), ("ada", "negative")]
    # The end of the input is as good as q.
    assert label("u").out.splitlines()[-1] == "ada: 1 labelled now, 8 left"
    assert label("p" * 20).out.splitlines()[-1] == "ada: 8 labelled now, nothing left to label"
    assert label("").out.splitlines() == ["ada: 0 labelled now, nothing left to label"]
    assert label("q", coder="bob").out.splitlines()[-1] == "bob: 0 labelled now, 12 left"


def test_a_post_can_be_labelled_again_by_going_back(
    posts: SecretStr, label: Callable[..., Ended]
) -> None:
    draw_sample(posts, 12)
    ended = label("bpbnxq")
    assert ended.out.splitlines()[-1] == "ada: 1 labelled now, 11 left"
    assert _labels(posts) == [("ada", "negative")]
    assert ended.out.count("1 of 12, language en") == 3
    # The unknown key brings the help once more.
    assert ended.out.count(_HELP) == 6


def test_a_coder_sees_neither_the_models_label_nor_that_of_others(
    posts: SecretStr, label: Callable[..., Ended]
) -> None:
    draw_sample(posts, 12)
    label("n", coder="bob")
    seen = label("").out.replace(_HELP, "").replace("Neutral is neither", "")
    assert not {"positive", "neutral", "negative", "lower", "higher", "bob"} & set(seen.split())


def test_a_text_cannot_act_on_the_terminal(url: SecretStr, label: Callable[..., Ended]) -> None:
    with transaction(url) as connection:
        add_post(connection, 1, "red \x1b[31m and \u202ebackwards\n\nmi\u200cram \u0007")
    draw_sample(url, 1)
    lines = label("").out.splitlines()
    assert "red \\x1b[31m and \\u202ebackwards" in lines
    assert "mi\u200cram \\x07" in lines


def test_a_text_with_a_content_warning_is_shown_on_request(
    url: SecretStr, label: Callable[..., Ended]
) -> None:
    with transaction(url) as connection:
        add_post(connection, 1, "something grim", is_sensitive=True)
    draw_sample(url, 1)
    unseen = label("u").out
    assert "It has a content warning; to see its text, press s." in unseen
    assert "something grim" not in unseen
    assert "something grim" in label("sn", coder="bob").out


def test_a_deleted_post_is_skipped(posts: SecretStr, label: Callable[..., Ended]) -> None:
    draw_sample(posts, 12)
    with transaction(posts) as connection:
        connection.execute("DELETE FROM masto.toots_raw")
        add_post(connection, 77, "the last one")
    draw_sample(posts, 1)
    out = label("p").out
    assert "the last one" in out
    assert out.splitlines()[-1] == "ada: 1 labelled now, nothing left to label"


def test_only_who_settles_sees_what_coders_said(
    posts: SecretStr, label: Callable[..., Ended], commands: Commands
) -> None:
    draw_sample(posts, 12)
    label("pp")
    label("np", coder="bob")
    settled = label("o", "--settle", coder="cleo").out
    assert "Coders say: negative, positive" in settled
    assert settled.splitlines()[-1] == "cleo: 1 labelled now, nothing left to label"
    shown = json.loads(commands("annotate", "agreement", "--json").out)
    assert (shown["posts"], shown["agreed"], shown["disputed"]) == (2, 1, 0)


def test_agreement_is_shown_by_coder_and_language(posts: SecretStr, commands: Commands) -> None:
    draw_sample(posts, 30)
    for post in sample_of(posts).posts[:20]:
        give_label(posts, post.id, "ada", "positive" if post.id % 2 else "negative")
        give_label(posts, post.id, "bob", "positive" if post.id % 2 or post.id < 8 else "negative")
    give_label(posts, sample_of(posts).posts[20].id, "bob", "unsure")
    lines = commands("annotate", "agreement").out.splitlines()
    assert lines[:3] == [
        "coder  labelled  unsure  left",
        "ada    20        0       10",
        "bob    20        1       9",
    ]
    assert lines[3].split() == ["language", "posts", "agreed", "alpha", "95", "%", "interval"]
    assert [line.split()[:2] for line in lines[4:6]] == [["en", "20"], ["all", "20"]]
    disputed = int(lines[6].split()[0])
    assert lines[6].endswith("  negative and positive")
    assert lines[7].startswith(f"{disputed} posts have no label that counts. A third person")


def test_agreement_of_one_coder_is_not_known_yet(posts: SecretStr, commands: Commands) -> None:
    draw_sample(posts, 12)
    give_label(posts, sample_of(posts).posts[0].id, "ada", "positive")
    lines = commands("annotate", "agreement").out.splitlines()
    assert lines[-1] == "No post has labels of two coders yet."


def test_an_evaluation_is_printed_and_recorded_with_the_model(
    url: SecretStr, commands: Commands, tmp_path: Path
) -> None:
    folder = tmp_path / "c0ffee"
    folder.mkdir()
    add_champion(url, str(folder))
    with transaction(url) as connection:
        for id_ in range(40):
            add_post(connection, id_, f"text {id_}", prob_pos=id_ / 40)
    draw_sample(url, 40)
    for post in sample_of(url).posts[:38]:
        for coder in ("ada", "bob"):
            give_label(url, post.id, coder, "negative" if post.id % 4 == 0 else "positive")
    lines = commands("annotate", "evaluate").out.splitlines()
    assert lines[1].split()[:2] == ["en", "38"]
    assert lines[2].split()[:2] == ["all", "38"]
    assert lines[3].startswith("Coders: 2, Krippendorff's alpha 1.000. No model can")
    assert lines[4:] == [
        "        2  posts left out without labels of two coders",
        "Recorded with model c0ffee.",
    ]
    card = (folder / "card.md").read_text(encoding="utf-8")
    assert "## Own posts" in card
    assert "| accuracy of the labels | 38 |" in card
    as_json = json.loads(commands("annotate", "evaluate", "--json").out)
    assert as_json["own_posts"]["rows"] == 38
    assert as_json["left_out"]["unlabelled"] == 2


def test_an_evaluation_counts_also_if_the_card_cannot_be_written(
    posts: SecretStr, commands: Commands
) -> None:
    draw_sample(posts, 30)
    for post in sample_of(posts).posts:
        for coder in ("ada", "bob"):
            give_label(posts, post.id, coder, "negative")
    ended = commands("annotate", "evaluate")
    assert ended.status == 0
    assert "card.md in /models/c0ffee is not updated (No such file or directory)" in ended.err


def test_an_export_says_how_to_train_with_it(
    posts: SecretStr, commands: Commands, folder: Path
) -> None:
    draw_sample(posts, 12, is_training=True)
    for post in sample_of(posts).posts[:2]:
        for coder in ("ada", "bob"):
            give_label(posts, post.id, coder, "neutral")
    assert commands("annotate", "export", "labels.csv").out.splitlines() == [
        "        2  en, neutral",
        "2 posts written to labels.csv; to train with them, set SENTIMENT_CALIBRATION="
        f"{folder / 'labels.csv'}",
    ]
    assert stat.S_IMODE((folder / "labels.csv").stat().st_mode) == 0o600
    printed = commands("annotate", "export", "all.csv", "--every-label").out
    assert printed == "4 labels written to all.csv\n"


@pytest.mark.parametrize("options", [(), ("--unlabelled", "--everything")])
def test_what_to_remove_is_named(commands: Commands, options: tuple[str, ...]) -> None:
    message = commands.failure(2, "annotate", "remove", *options)
    assert message.startswith("give one of --unlabelled, --coder and --everything")


def test_labels_of_a_coder_are_removed(posts: SecretStr, commands: Commands) -> None:
    draw_sample(posts, 12)
    give_label(posts, sample_of(posts).posts[0].id, "ada", "positive")
    removed = commands("annotate", "remove", "--coder", "ada", "--yes")
    assert removed.out == "1 labels removed\n"
    assert commands("annotate", "remove", "--unlabelled").out.startswith("12 posts without")


def test_without_drawn_posts_each_command_says_how_to_draw(
    url: SecretStr, commands: Commands
) -> None:
    for arguments in (("agreement",), ("label", "--coder", "ada")):
        message = commands.failure(1, "annotate", *arguments)
        assert message == "no posts are drawn; run: mastodon-assets annotate sample"


def test_wrong_options_are_refused(url: SecretStr, commands: Commands) -> None:
    message = commands.failure(2, "annotate", "sample", "--languages", "en;de")
    assert message.startswith("--languages 'en;de': give language codes such as en,de")
    assert "--coder 'a b': allowed" in commands.failure(2, "annotate", "label", "--coder", "a b")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_needs_no_return_key_and_its_end_of_input_quits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = iter(["P"])
    monkeypatch.setattr("sys.stdin", _Terminal())
    monkeypatch.setattr(typer, "getchar", lambda: next(keys))
    assert annotate._read_key() == "p"

    def end_of_input() -> str:
        raise EOFError

    monkeypatch.setattr(typer, "getchar", end_of_input)
    assert annotate._read_key() == "q"
