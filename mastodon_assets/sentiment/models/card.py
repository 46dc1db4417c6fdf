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
_KNOWN_FAILURES = (
    "Posts are not the texts that it was measured on. On them it is usually less good; how much"
    " less, only labels by people for such posts can tell.",
    "Irony and sarcasm are mostly read literally.",
    "Quoted or reported feelings count as the author's own.",
    "A rare word under a negation is often read without the negation.",
    "A text in two languages is scored as if it were all in the one that the detector finds.",
    "Hindi and other languages that are written in Latin letters may be taken for English.",
    "Without a neutral class, neutral only means that the model is undecided.",
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
    if slices := metrics.get("slices"):
        rows = (_row(name, figures, "auc") for name, figures in slices.items())
        parts += ["## Slices", _table(("texts with", "texts", "AUC", "95 % interval"), rows)]
    if suites := metrics.get("suites"):
        parts += ["## Behaviour", _list(_behaviour(suites))]
    parts += ["## Known failures", _list(_KNOWN_FAILURES), "## Not for", _list(_NOT_FOR)]
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
