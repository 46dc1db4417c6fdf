"""Figures of kinds of texts."""

import pyarrow as pa

from mastodon_assets.sentiment.evaluation.slices import SLICES, slice_figures


def test_each_text_counts_in_the_slices_that_it_belongs_to() -> None:
    texts = {
        "I am NOT amused": {"negation", "up to 6 words"},
        "he isn't here": {"negation", "up to 6 words"},
        "see https://one.example @ada": {"links and mentions", "up to 6 words"},
        "happy :) day": {"emoji and emoticons", "up to 6 words"},
        "good \N{SLIGHTLY SMILING FACE}": {"emoji and emoticons", "up to 6 words"},
        "word " * 20: {"20 words or more"},
        "seven words are neither short nor long": set(),
        "": {"up to 6 words"},
    }
    for text, expected in texts.items():
        figures = slice_figures(pa.table({"text": [text], "target": [1.0], "prob_pos": [0.9]}))
        assert {name for name, own in figures.items() if own["rows"]} == expected, text


def test_a_slice_has_the_figures_of_its_texts_alone() -> None:
    rows = [
        ("not good", 0.0, 0.1),
        ("not bad", 1.0, 0.2),
        ("such a good day today, well done", 1.0, 0.9),
    ]
    columns = zip(*rows, strict=True)
    held_out = pa.table(dict(zip(("text", "target", "prob_pos"), map(list, columns), strict=True)))
    figures = slice_figures(held_out)
    assert figures.keys() == SLICES.keys()
    assert (figures["negation"]["rows"], figures["negation"]["accuracy"]) == (2, 0.5)
    assert figures["20 words or more"]["auc"] is None
