"""The Spark ML pipeline from text to a probability, with all cleaning inside it.

What belongs here: stages and their parameters. Only stages that plain PySpark loads, and no Python
a row, so that training, batch and stream do the same to the same text. What does not: where the
training texts come from (`corpus`) and what a probability is worth (`evaluate`).
"""

from dataclasses import dataclass

from pyspark.ml import Pipeline, Transformer
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import (
    IDF,
    HashingTF,
    NGram,
    Normalizer,
    RegexTokenizer,
    SQLTransformer,
)
from pyspark.ml.functions import vector_to_array
from pyspark.sql import Column
from pyspark.sql import functions as F

# What the model was measured for: first parts of language tags, lower case.
LANGUAGES = ("en",)

# Java regexes for texts of strangers. Each begins where a run of its characters begins, so none is
# quadratic, and none repeats a group without bound: Java recurses there, to a stack overflow.
# `www.a.example`, `a.example/path` (what is left of a link with hidden parts), `some-shop.com`.
_LINK = (
    r"(?i)\bhttps?://\S+|\bwww\.\S+|(?<![a-z0-9.-])[a-z0-9][a-z0-9.-]*\.(?:[a-z]{2,}/\S*"
    r"|(?:com|org|net|edu|gov|info|io|dev|app|social|online|blog)(?![\w-]))"
)
# `@ada`, `@ada@one.example`, `ada@one.example`.
_HANDLE = r"(?U)(?<![\w.+-])[\w.+-]*+@[\w.-]+(?:@[\w.-]+)?"
# `:blobcat_happy:`, but not the middle of `10:30:45`.
_CUSTOM_EMOJI = r"(?<!\w):[A-Za-z0-9_+-]{2,}:(?!\w)"
# Between the words of `#HappyMonday`.
_HASHTAG_HUMP = r"(?U)(?<=\p{Ll})(?=\p{Lu})(?<=#\w{0,80})"
# `soooo` and `sooooooo` are one word, and not `so`.
_ELONGATION = r"(\p{L})\1{2,}"
# Words of the model's script, apostrophes kept: `don't`, `gr8`, `o'clock`.
_WORD = r"\p{IsLatin}[\p{IsLatin}\p{M}\p{N}]*(?:'[\p{IsLatin}\p{M}]+){0,3}"


@dataclass(frozen=True)
class PipelineParameters:
    """What the model's version depends on; chosen by measuring on Sentiment140.

    `inverse_regularization` is the C of the field: the weight of one row against the penalty.
    """

    buckets: int = 2**19
    min_doc_freq: int = 2
    inverse_regularization: float = 2.5
    max_iter: int = 100


# A few thousand short texts: more buckets would only cost time.
DEMO_PARAMETERS = PipelineParameters(buckets=2**14, inverse_regularization=10.0, max_iter=30)


def cleaning_stages() -> list[Transformer]:
    """text -> cleaned (text in lower case without links, handles and custom emoji) and words."""
    return [
        SQLTransformer(statement=_with_cleaned_text()),
        RegexTokenizer(
            inputCol="cleaned", outputCol="words", pattern=_WORD, gaps=False, toLowercase=False
        ),
    ]


def build_pipeline(parameters: PipelineParameters, *, train_rows: int) -> Pipeline:
    """Unfitted pipeline: `text` (and `target`, 0 or 1, to fit) -> `words`, `probability`, …

    `words` is empty where the text has none; `prob_pos` reads `probability`. `train_rows` is the
    number of rows it will be fitted on: Spark's penalty counts against their mean, not their sum.
    """
    return Pipeline(
        stages=[
            *cleaning_stages(),
            NGram(n=2, inputCol="words", outputCol="bigrams"),
            SQLTransformer(statement="SELECT *, concat(words, bigrams) AS terms FROM __THIS__"),
            HashingTF(
                numFeatures=parameters.buckets, binary=True, inputCol="terms", outputCol="presence"
            ),
            IDF(minDocFreq=parameters.min_doc_freq, inputCol="presence", outputCol="weights"),
            Normalizer(inputCol="weights", outputCol="features"),
            LogisticRegression(
                labelCol="target",
                regParam=1 / (parameters.inverse_regularization * train_rows),
                maxIter=parameters.max_iter,
                standardization=False,
            ),
        ]
    )


def prob_pos() -> Column:
    """Probability of positive, from the `probability` vector."""
    return vector_to_array(F.col("probability"))[1]


def _with_cleaned_text() -> str:
    """The statement; its literals are raw, so that a backslash is the regex's own."""
    cleaned = "coalesce(text, '')"
    for pattern, replacement in (
        (_LINK, " "),
        (_HANDLE, " "),
        (_CUSTOM_EMOJI, " "),
        (_HASHTAG_HUMP, " "),
        (_ELONGATION, "$1$1"),
    ):
        cleaned = f"regexp_replace({cleaned}, r'{pattern}', '{replacement}')"
    # Typographic apostrophes are apostrophes.
    cleaned = f"lower(translate({cleaned}, \"’‘ʼ＇\", \"''''\"))"
    return f"SELECT *, {cleaned} AS cleaned FROM __THIS__"  # noqa: S608 - constants of ours
