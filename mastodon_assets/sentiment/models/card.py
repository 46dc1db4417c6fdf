"""The model card: what a model is, how good it is and what it is not for, in Markdown.

What belongs here: the page, from a model's metrics. Who shows it: the asset's metadata and the file
`card.md` in the model's folder.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mastodon_assets.sentiment.features.encoders.packaged import PACKAGES

_FIGURES = {
    "auc": "AUC of positive and negative (chance: 0.5)",
    "accuracy": "accuracy of positive and negative",
    "macro_f1": "macro-F1 of positive and negative",
    "calibration_error": "calibration error (perfect: 0)",
}
_FIGURES_OF_CLASSES = {
    "macro_recall": "macro-recall of three classes (chance: 0.333)",
    "macro_f1": "macro-F1 of three classes",
}
_FIGURES_OF_OWN_POSTS = {
    "accuracy": "accuracy of the labels",
    "macro_recall": "macro-recall of the labels (chance: 0.333)",
}
_KNOWN_FAILURES = (
    "Irony and sarcasm are mostly read literally.",
    "Quoted or reported feelings count as the author's own.",
    "A rare word under a negation is often read without the negation.",
    "A text in two languages is scored as if it were all in the one that the detector finds.",
    "Hindi and other languages that are written in Latin letters may be taken for English.",
    "Without a neutral class, neutral only means that the model is undecided.",
)
_UNKNOWN_ON_OWN_POSTS = (
    "Posts are not the texts that it was measured on. On them it is usually less good. Labels by"
    " people show how much less: `mastodon-assets annotate`.",
)
_NOT_FOR = (
    "Decisions about people: moderation, ranking, advertising, hiring, credit, policing.",
    "Conclusions on the mood or the health of a single person.",
    "Conclusions from a single post. Shares over many posts are what it is for.",
    "Comparisons between languages as if all were measured alike: each has its own errors.",
)


def model_card(version: str, corpus: str, metrics: Mapping[str, Any]) -> str:
    """Return the page, in Markdown.

    Args:
        version: the model's version.
        corpus: name of the corpus that it was trained on.
        metrics: the model's metrics; what an older model does not have is left out.
    """
    parts = [
        f"# Sentiment model {version}",
        *(
            ["**For demonstration only: it learned from made-up sentences.**"]
            if metrics.get("is_synthetic")
            else []
        ),
        "## Data",
        _list(_data(corpus, metrics)),
        "## Figures",
        "Of held-out texts, which trained nothing, with 95 % intervals.",
        _table(("figure", "texts", "value", "95 % interval"), _figures(metrics)),
    ]
    classes = metrics.get("classes") or {}
    if classes.get("languages"):
        parts += [
            "## Languages",
            _table(("language", "texts", "macro-F1", "95 % interval", ""), _languages(metrics)),
        ]
    else:
        parts += ["## Languages", f"Served: {', '.join(metrics.get('languages') or [])}."]
    own_posts = metrics.get("own_posts")
    if own_posts:
        parts += [
            "## Own posts",
            _on_own_posts(own_posts),
            _table(("figure", "posts", "value", "95 % interval"), _own_figures(own_posts)),
        ]
    if slices := metrics.get("slices"):
        rows = (_row(name, figures, "auc") for name, figures in slices.items())
        parts += ["## Slices", _table(("texts with", "texts", "AUC", "95 % interval"), rows)]
    if suites := metrics.get("suites"):
        parts += ["## Behaviour", _list(_behaviour(suites))]
    failures = _KNOWN_FAILURES if own_posts else (*_UNKNOWN_ON_OWN_POSTS, *_KNOWN_FAILURES)
    parts += ["## Known failures", _list(failures), "## Not for", _list(_NOT_FOR)]
    return "\n\n".join(parts) + "\n"


def _data(corpus: str, metrics: Mapping[str, Any]) -> Iterator[str]:
    if rows := metrics.get("train_rows"):
        yield f"Trained on {rows:,} distinct texts of {corpus}. A fifth of the texts is held out."
    else:
        yield f"Trained on {corpus}."
    classes, labelled = metrics.get("classes"), metrics.get("calibration_sha256")
    if classes and labelled:
        yield (
            f"Three classes by texts that people labelled (SHA-256 {labelled[:12]}),"
            f" {classes['rows']:,} of them held out."
        )
    if fingerprint := metrics.get("embedding_sha256"):
        yield f"N-grams, stacked with {_encoder(fingerprint)}."
    else:
        yield "N-grams of words and characters, without an encoder."
    if metrics.get("lexicon_sha256"):
        yield "English words that are rare in the corpus have the valences of VADER."


def _encoder(fingerprint: str) -> str:
    for package in PACKAGES.values():
        if package.fingerprint == fingerprint:
            return f"the encoder {package.name} ({package.distribution} {package.version})"
    return f"an encoder from a folder (SHA-256 {fingerprint[:12]})"


def _figures(metrics: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, words in _FIGURES.items():
        yield _row(words, metrics, name)
    if classes := metrics.get("classes"):
        for name, words in _FIGURES_OF_CLASSES.items():
            yield _row(words, classes, name)


def _languages(metrics: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for language, figures in sorted(metrics["classes"]["languages"].items()):
        is_served = language in (metrics.get("languages") or ())
        yield *_row(language, figures, "macro_f1"), "served" if is_served else "not served"


def _on_own_posts(own_posts: Mapping[str, Any]) -> str:
    alpha, disputed = own_posts.get("alpha"), own_posts["disputed"]
    agreed = "" if alpha is None else f" Krippendorff's alpha of the coders is {alpha:.3f}."
    left_out = f" {disputed:,} posts on which they disagree are left out." if disputed else ""
    return (
        f"{own_posts['rows']:,} posts drawn at random from those of this installation and labelled"
        f" by {own_posts['coders']} coders, weighted to all posts with a label of the model at the"
        f" draw.{agreed}{left_out}"
    )


def _own_figures(own_posts: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, words in _FIGURES_OF_OWN_POSTS.items():
        yield _row(words, own_posts, name)
        for language, figures in sorted(own_posts["languages"].items()):
            yield _row(f"{words}, {language}", figures, name)


def _behaviour(suites: Mapping[str, Any]) -> Iterator[str]:
    negation, abstention = suites["negation"], suites["abstention"]
    right = round(negation["accuracy"] * negation["rows"])
    yield f"Negation: {right} of {negation['rows']} pairs of sentences in the right order."
    without = round(abstention["share"] * abstention["rows"])
    yield f"Abstention: {without} of {abstention['rows']} texts without evidence have no label."


def _row(words: str, figures: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value, interval = figures.get(name), (figures.get("intervals") or {}).get(name)
    rows = figures.get("rows")
    return (
        words,
        "" if rows is None else f"{rows:,}",
        "undefined" if value is None else f"{value:.3f}",
        f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "",
    )


def _table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(lines: Iterator[str] | tuple[str, ...]) -> str:
    return "\n".join(f"- {line}" for line in lines)
