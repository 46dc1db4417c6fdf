"""Commands for labels that people give: `annotate …`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from mastodon_assets.cli.common import AsJson, flag
from mastodon_assets.cli.console import print_json, print_line, print_table, print_text, report
from mastodon_assets.config.settings import MOST_DAYS, Settings, load_settings

if TYPE_CHECKING:
    from mastodon_assets.sentiment.annotation.agreement import Agreement
    from mastodon_assets.sentiment.annotation.labels import Sample, ShownPost
    from mastodon_assets.sentiment.annotation.own_posts import Evaluation

annotate_app = typer.Typer(
    help="Label posts by hand: how good the model's labels are here, and texts to train with."
)

_KEYS = {"p": "positive", "o": "neutral", "n": "negative", "u": "unsure"}
_BACK, _SHOW, _QUIT = "b", "s", "q"
_HELP = "p positive   o neutral   n negative   u unsure   b back   q quit"
_SHOWN_DECIMALS = 3

_Languages = Annotated[
    str | None,
    typer.Option(
        "--languages", metavar="en,de", help="Only posts declared in these languages; default all."
    ),
]


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands of this module to `app`."""
    app.add_typer(annotate_app, name="annotate", rich_help_panel=panel)


@annotate_app.command("sample")
def sample(
    size: Annotated[int, typer.Option(min=1, metavar="N", help="Number of posts to draw.")] = 300,
    languages: _Languages = None,
    days: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_DAYS, metavar="N", help="Only posts of the last N days; default all."
        ),
    ] = None,
    training: Annotated[
        bool,
        flag(
            "--training",
            "Draw posts to train with, also without a label of the model. Their labels are"
            " exported, and do not count in an evaluation.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Draw posts at random for coders to label.

    They are drawn from each language, each label of the model, and from the lower and the higher
    half of its probabilities. Rare ones are drawn more often than they occur; an evaluation weighs
    them so that it holds for all posts. A post is drawn once. Drawing again adds posts.

    DATABASE_URL must log in as masto_writer, or as a role that may do more.
    """
    from mastodon_assets.sentiment.annotation.labels import language_codes
    from mastodon_assets.sentiment.annotation.sample import draw_sample

    codes = language_codes(languages)
    settings = _migrated()
    drawn = draw_sample(
        settings.postgres_url,
        size,
        languages=codes,
        days=days,
        is_training=training,
    )
    if as_json:
        print_json(asdict(drawn))
        return
    for stratum, count in drawn.drawn.items():
        print_line(f"{count:>9,}  {stratum}")
    print_line(
        f"{sum(drawn.drawn.values()):,} of {drawn.posts:,} posts drawn. Each coder labels them by:"
        " mastodon-assets annotate label --coder NAME"
    )


@annotate_app.command("label")
def label(
    coder: Annotated[
        str, typer.Option(metavar="NAME", help="Your name, or any other that is always the same.")
    ],
    languages: _Languages = None,
    settle: Annotated[
        bool,
        flag("--settle", "Only posts on which coders disagree: your label decides."),
    ] = False,
) -> None:
    """Label the drawn posts in the terminal, one key per post.

    Each label is stored at once. Quit at any time: the same command goes on where you stopped. You
    see neither the model's label nor, without --settle, those of others. A post that was deleted is
    skipped; one that was edited is asked again.

    Without a terminal, the keys are read from standard input, one per line. DATABASE_URL may log in
    as masto_moderator.
    """
    from mastodon_assets.sentiment.annotation.labels import (
        coder_name,
        language_codes,
        waiting_for,
    )

    name, codes = coder_name(coder), language_codes(languages)
    settings = _migrated()
    drawn = _read_sample(settings)
    queue = waiting_for(drawn, name, languages=codes, settles=settle)
    if queue:
        print_line("Which feeling does the author express? Neutral is neither, or both alike.")
    labelled = _label_all(settings, drawn, queue, name, settles=settle)
    left = f"{len(queue):,} left" if queue else "nothing left to label"
    print_line(f"{name}: {labelled:,} labelled now, {left}")


@annotate_app.command("agreement")
def agreement(as_json: AsJson = False) -> None:
    """Show how far the coders are, and how far they agree: Krippendorff's alpha.

    Alpha is 1 if they agree on every post, 0 if they agree as often as by chance. Krippendorff
    relies on labels from 0.8 up, and draws tentative conclusions from 0.667 up. Labels count as
    nominal; unsure ones and those of --settle are left out.
    """
    from mastodon_assets.sentiment.annotation.agreement import (
        disagreements,
        measure_agreement,
        progress,
        units,
    )
    from mastodon_assets.sentiment.annotation.labels import is_disputed

    drawn = _read_sample(_migrated())
    coders = progress(drawn)
    labelled = units(drawn)
    overall = measure_agreement(labelled)
    by_language = {
        language: measure_agreement(units(drawn, language))
        for language in sorted({post.language for post in drawn.posts})
    }
    by_language = {name: found for name, found in by_language.items() if found.posts}
    pairs = disagreements(labelled)
    disputed = sum(is_disputed(drawn.labels_of(post)) for post in drawn.posts)
    if as_json:
        print_json(
            {
                "drawn": len(drawn.posts),
                "coders": [asdict(each) for each in coders],
                **asdict(overall),
                "languages": {name: asdict(found) for name, found in by_language.items()},
                "disagreements": [
                    {"labels": list(labels), "count": count}
                    for labels, count in pairs.most_common()
                ],
                "disputed": disputed,
            }
        )
        return
    table = Table("coder", "labelled", "unsure", "left", box=None, pad_edge=False)
    for each in coders:
        counts = (each.labelled, each.unsure, each.waiting)
        table.add_row(each.coder, *(f"{count:,}" for count in counts))
    print_table(table)
    if not overall.posts:
        print_line("No post has labels of two coders yet.")
        return
    table = Table("language", "posts", "agreed", "alpha", "95 % interval", box=None, pad_edge=False)
    for name, found in {**by_language, "all": overall}.items():
        table.add_row(*map(Text, _agreement_cells(name, found)))
    print_table(table)
    for labels, count in pairs.most_common():
        print_line(f"{count:>9,}  {' and '.join(labels)}")
    if disputed:
        print_line(
            f"{disputed:,} posts have no label that counts. A third person, or all together, settle"
            " them by: mastodon-assets annotate label --coder NAME --settle"
        )


@annotate_app.command("evaluate")
def evaluate(as_json: AsJson = False) -> None:
    """Compare the champion's labels with those of people, and record it with the model.

    It is the only figure that says how good the labels are on your own posts. It is weighted to all
    posts that could have been drawn. Posts drawn with --training do not count.

    A post counts if most of at least two coders gave it the same label, or if it was settled. The
    figures are in the model's metrics, on its card and on the dashboard.
    """
    from mastodon_assets.sentiment.annotation.own_posts import evaluate_champion
    from mastodon_assets.sentiment.models.store import write_card
    from mastodon_assets.spark.storage import storage_path

    settings = _migrated()
    evaluation = evaluate_champion(settings)
    model = evaluation.model
    try:
        folder = storage_path(settings, model.path)
        write_card(folder, model.version, model.corpus, model.metrics)
    except OSError as error:
        report(f"card.md in {model.path} is not updated ({error.strerror or error})")
    if as_json:
        print_json(
            {
                "version": model.version,
                "own_posts": evaluation.figures,
                "left_out": asdict(evaluation.left_out),
            }
        )
    else:
        _print_evaluation(evaluation)


@annotate_app.command("export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="The file to write.")],
    every_label: Annotated[
        bool,
        flag("--every-label", "Write each label of each coder instead, of all drawn posts."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write labelled posts to a CSV file, to train with: SENTIMENT_CALIBRATION takes it.

    It has the columns label, text and lang, and the posts drawn with --training whose label counts.

    The file holds texts, and posts that are deleted later stay in it: protect it, and write it
    again or delete it when a purge asks for it. Only its owner may read it.
    """
    from mastodon_assets.sentiment.annotation.export import export_labels, export_training

    settings = _migrated()
    if every_label:
        count = export_labels(settings.postgres_url, file)
        if as_json:
            print_json({"labels": count})
        else:
            print_line(f"{count:,} labels written to {file}")
        return
    counts = export_training(settings.postgres_url, file)
    if as_json:
        print_json(
            [
                {"lang": language, "label": label, "posts": count}
                for (language, label), count in sorted(counts.items())
            ]
        )
        return
    for (language, label), count in sorted(counts.items()):
        print_line(f"{count:>9,}  {language}, {label}")
    print_line(
        f"{counts.total():,} posts written to {file}; to train with them, set"
        f" SENTIMENT_CALIBRATION={file.absolute()}"
    )


@annotate_app.command("remove")
def remove(
    unlabelled: Annotated[
        bool, flag("--unlabelled", "Remove the drawn posts that nobody has labelled.")
    ] = False,
    coder: Annotated[
        str | None, typer.Option(metavar="NAME", help="Remove all labels of this coder.")
    ] = None,
    everything: Annotated[
        bool, flag("--everything", "Remove all drawn posts and all labels.")
    ] = False,
    yes: Annotated[bool, flag("--yes", "Do not ask for confirmation.")] = False,
) -> None:
    """Remove drawn posts or labels. The posts themselves stay.

    What evaluations have recorded stays with the models.
    """
    from mastodon_assets.sentiment.annotation import labels
    from mastodon_assets.sentiment.annotation import sample as drawn

    if unlabelled + everything + (coder is not None) != 1:
        raise typer.BadParameter("give one of --unlabelled, --coder and --everything")
    settings = _migrated()
    if unlabelled:
        count = drawn.remove_unlabelled(settings.postgres_url)
        print_line(f"{count:,} posts without a label removed from the sample")
        return
    what = "all drawn posts and all labels" if coder is None else f"all labels of {coder}"
    if not yes:
        typer.confirm(f"Remove {what} for good?", abort=True, err=True)
    if coder is None:
        count = drawn.remove_everything(settings.postgres_url)
        print_line(f"{count:,} posts with their labels removed from the sample")
    else:
        print_line(f"{labels.remove_coder(settings.postgres_url, coder):,} labels removed")


def _migrated() -> Settings:
    from mastodon_assets.warehouse.migrate import migrate

    settings = load_settings()
    migrate(settings.postgres_url)
    return settings


def _read_sample(settings: Settings) -> "Sample":
    from mastodon_assets.sentiment.annotation.labels import read_sample
    from mastodon_assets.sentiment.annotation.sample import AnnotationError
    from mastodon_assets.warehouse.database import transaction

    with transaction(settings.postgres_url, snapshot=True) as connection:
        drawn = read_sample(connection)
    if not drawn.posts:
        raise AnnotationError("no posts are drawn; run: mastodon-assets annotate sample")
    return drawn


def _label_all(
    settings: Settings, drawn: "Sample", queue: list[int], coder: str, *, settles: bool
) -> int:
    """Ask for each post of the queue; leave in it what waits; return the number of labels."""
    from mastodon_assets.sentiment.annotation.labels import given, read_post, store_label
    from mastodon_assets.warehouse.database import PERSON_SECONDS, transaction

    done: list[int] = []
    while queue:
        with transaction(
            settings.postgres_url, snapshot=True, max_seconds=PERSON_SECONDS
        ) as connection:
            post = read_post(connection, queue[0])
        if post is None:
            queue.pop(0)
            continue
        others = sorted(each.label for each in given(drawn.labels.get(post.id, ())))
        _show(post, len(done) + 1, len(done) + len(queue), others if settles else [])
        key = _ask(post)
        if key == _QUIT:
            break
        if key == _BACK:
            if done:
                queue.insert(0, done.pop())
            continue
        print_line(_KEYS[key])
        label = _KEYS[key]
        if store_label(
            settings.postgres_url, post.id, post.text_hash, coder, label, settles=settles
        ):
            done.append(queue.pop(0))
        else:
            print_line("This post was changed just now; your label is not stored.")
    return len(done)


def _show(post: "ShownPost", number: int, total: int, others: list[str]) -> None:
    print_line()
    print_line((f"{number:,} of {total:,}, language {post.language}", "bold"))
    if others:
        print_line(f"Coders say: {', '.join(others)}")
    if not post.is_sensitive:
        print_text(post.text)


def _ask(post: "ShownPost") -> str:
    """Return a key of `_KEYS`, or the one for back or quit."""
    if post.is_sensitive:
        print_line("It has a content warning; to see its text, press s.")
    print_line((_HELP, "dim"))
    while True:
        key = _read_key()
        if key == _SHOW and post.is_sensitive:
            print_text(post.text)
        elif key in (*_KEYS, _BACK, _QUIT):
            return key
        else:
            print_line((_HELP, "dim"))


def _read_key() -> str:
    """Return the next key, in lower case; the one for quit at the end of input."""
    if sys.stdin.isatty():
        try:
            return typer.getchar().lower()
        except EOFError:
            return _QUIT
    line = sys.stdin.readline()
    return line.strip()[:1].lower() if line else _QUIT


def _agreement_cells(name: str, found: "Agreement") -> tuple[str, ...]:
    return (
        name,
        f"{found.posts:,}",
        f"{found.agreed:,}",
        "undefined" if found.alpha is None else f"{found.alpha:.{_SHOWN_DECIMALS}f}",
        _interval(found.interval),
    )


def _interval(interval: Any) -> str:
    if interval is None:
        return ""
    low, high = interval
    return f"{low:.{_SHOWN_DECIMALS}f} to {high:.{_SHOWN_DECIMALS}f}"


def _print_evaluation(evaluation: "Evaluation") -> None:
    figures, left_out = evaluation.figures, evaluation.left_out
    table = Table(
        *("language", "posts", "accuracy", "95 % interval", "macro-recall", "95 % interval"),
        box=None,
        pad_edge=False,
    )
    for name, found in {**figures["languages"], "all": figures}.items():
        cells = [name, f"{found['rows']:,}"]
        for metric in ("accuracy", "macro_recall"):
            cells += [f"{found[metric]:.3f}", _interval(found["intervals"][metric])]
        table.add_row(*map(Text, cells))
    print_table(table)
    alpha = "undefined" if figures["alpha"] is None else f"{figures['alpha']:.3f}"
    print_line(
        f"Coders: {figures['coders']}, Krippendorff's alpha {alpha}. No model can be expected to"
        " agree with people more than they do with each other."
    )
    for count, reason in (
        (left_out.unlabelled, "without labels of two coders"),
        (left_out.disputed, "on which coders disagree, usually the harder ones"),
        (left_out.without_model_label, "that the champion does not label"),
        (left_out.other_model, "scored by another model; see: mastodon-assets model rescore"),
    ):
        if count:
            print_line(f"{count:>9,}  posts left out {reason}")
    print_line(f"Recorded with model {evaluation.model.version}.")
