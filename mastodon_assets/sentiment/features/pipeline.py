"""The Spark ML pipeline from text to a probability, with all cleaning inside it.

What belongs here: stages and their parameters. Only stages that plain PySpark loads, and no Python
a row, so that training, batch and stream do the same to the same text. What does not: where the
training texts come from (`corpus`), in which steps it is fitted (`train`) and what a probability is
worth (`evaluate`).
"""

from dataclasses import dataclass

import numpy as np
from pyspark.ml import Transformer
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import (
    ElementwiseProduct,
    HashingTF,
    Normalizer,
    SQLTransformer,
)
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import Vectors
from pyspark.ml.stat import Summarizer
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

# What the model was measured for: first parts of language tags, lower case.
LANGUAGES = ("en",)
# What `label_str` says, in the order of a three-class model's probabilities.
CLASSES = ("negative", "neutral", "positive")

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
# What says nothing about the language that a text is in.
NO_LANGUAGE = (_LINK, _HANDLE, _CUSTOM_EMOJI)
# Between the words of `#HappyMonday`.
_HASHTAG_HUMP = r"(?U)(?<=\p{Ll})(?=\p{Lu})(?<=#\w{0,80})"
# `soooo` and `sooooooo` are one word, and not `so`.
_SPACES = r"(?U)\s{2,}|[\s&&[^ ]]"
_ELONGATION = r"(\p{L})\1\1+"
# Emoji and emoticons are read as the word that they stand for: a corpus that has few of them, as
# Sentiment140, whose labels were made of them, still teaches what they mean.
_EMOTICON = r"[\x{1F000}-\x{1FAFF}\x{2600}-\x{27BF}:;=<^]"
# Of the texts that have such a character, one in five has more than a colon in front of a space.
_WHOLE_EMOTICON = r"[\x{1F000}-\x{1FAFF}\x{2600}-\x{27BF}]|[:;=]['o-]?[()D\[\]]|<3|\^_*\^"
_EMOTICONS = (
    (r"[\x{1F600}-\x{1F606}\x{1F609}-\x{1F60A}\x{1F60E}\x{1F638}-\x{1F63A}\x{1F642}\x{1F917}"
     r"\x{1F973}\x{263A}]|(?<!\w)[:;=]['o-]?[)D\]](?!\w)|\^_*\^", "happy"),
    (r"[\x{1F60D}\x{1F618}-\x{1F61A}\x{1F63B}\x{1F970}\x{1F493}\x{1F495}-\x{1F49F}\x{1F5A4}"
     r"\x{1F90D}\x{1F90E}\x{1F9E1}\x{2764}\x{2665}]|<3", "love"),
    (r"[\x{1F389}\x{1F38A}\x{1F44D}\x{1F44F}\x{1F64C}\x{1F929}\x{1F525}\x{1F4AF}]", "great"),
    (r"[\x{1F602}\x{1F923}]", "haha"),
    (r"[\x{1F612}-\x{1F614}\x{1F61E}-\x{1F61F}\x{1F622}\x{1F625}\x{1F629}\x{1F62B}\x{1F62D}"
     r"\x{1F63F}\x{1F641}\x{1F97A}\x{2639}\x{1F494}]|(?<!\w)[:=]['o-]?[(\[](?!\w)", "sad"),
    (r"[\x{1F620}-\x{1F621}\x{1F624}\x{1F92C}\x{1F63E}]", "angry"),
    (r"[\x{1F44E}\x{1F4A9}\x{1F922}\x{1F92E}]", "awful"),
)  # fmt: skip
# Words of the model's script, apostrophes kept: `don't`, `gr8`, `o'clock`. Latin is always among
# the letters; `a-z` is asked first, because to find a character's script is a search.
_WORD = r"[a-z{letters}][a-z{letters}\p{{M}}\p{{N}}]*(?:'[a-z{letters}\p{{M}}]+){{0,3}}"
# Between words: `!`, `...` and numbers say something too. None is without bound, so that what
# repeats is known.
_MARK = r"[!?]{1,3}|\.{2,3}|[.,;:()*]|\p{N}{1,4}"
_BEGIN, _END = "^", "$"
# From a negator to the next punctuation or `but`, each word gets the mark: `\G` is where the last
# match ended, so the text is walked once.
NEGATION_SUFFIX = "¬"
_NEGATOR = (
    r"(?:not|no|never|nothing|nobody|nowhere|none|nor|neither|without|cannot|hardly|barely"
    r"|(?:ca|do|does|did|is|was|wo|would|could|should|ai|have|has|had|are|were)nt|\p{L}+n't)"
)
_NEGATED = (
    rf"(?U)((?<![\w']){_NEGATOR}(?![\w'])|(?!\A)\G)( +)(?!but\b)"
    r"([^\s\p{L}\p{N}.,;:!?()]*+)(?=[\p{L}\p{N}])([^\s.,;:!?()]+)"
)
# What every negator has, so that most texts are not searched for one.
_MAY_NEGATE = r"n(?:o|ever|either)|n'?t\b|without|hardly|barely"
# Measured on a validation part: rarity gives less than .001 of AUC, grams that count more .001.
_RARITY = 0.1
_GRAMS_COUNT = 1.75
_FEWEST_TEXTS = 2
# Each step of a fit goes once over all buckets a block of rows: few large blocks, so. Spark's
# default is 1 MB, which at these widths costs more than the rows themselves.
BLOCK_MB = 8.0


@dataclass(frozen=True)
class PipelineParameters:
    """What the model's version depends on; chosen by measuring on Sentiment140.

    `pieces` are the lengths of the character n-grams. N-grams are told apart by the bucket that
    they are hashed to: a vocabulary costs more to make, and to look up, than it gains. A fit holds
    dozens of numbers a bucket and class in the driver's memory, so the head of three classes, which
    has fewer texts to learn from, has fewer buckets.
    `inverse_regularization` is the C of the field: the weight of one row against the penalty; the
    head of three classes has its own. `letters` are regex classes of the letters that make words.
    """

    pieces: tuple[int, ...] = (4, 6)
    buckets: int = 2**21
    head_buckets: int = 2**19
    inverse_regularization: float = 3.0
    head_inverse_regularization: float = 0.5
    max_iter: int = 70
    letters: str = r"\p{IsLatin}"


# A few thousand short texts: more buckets and steps would only cost time.
DEMO_PARAMETERS = PipelineParameters(
    pieces=(5,),
    buckets=2**17,
    head_buckets=2**17,
    inverse_regularization=10.0,
    head_inverse_regularization=1.0,
    max_iter=30,
)


def cleaning_stages(letters: str = PipelineParameters.letters) -> list[Transformer]:
    """text -> cleaned (text in lower case without links, handles and custom emoji), tokens, words.

    Tokens are words, numbers and marks of punctuation, between `^` and `$`; `words` has no others.
    A word after a negator carries a mark: `not ¬happy`.
    """
    return [
        SQLTransformer(statement=_with_cleaned_text()),
        SQLTransformer(statement=_with_tokens(letters)),
        # Only words have letters.
        SQLTransformer(
            statement=r"SELECT *, filter(tokens, t -> t RLIKE r'\p{L}') AS words FROM __THIS__"
        ),
    ]


def term_stages(parameters: PipelineParameters) -> list[Transformer]:
    """cleaned, tokens -> grams (of tokens) and terms (grams and pieces), both arrays of int.

    Grams are single tokens, pairs of neighbours, and pairs of those with one between them. Pieces
    are character n-grams, across words. Each is a hash, with a number of its own for the last two:
    as strings, all of them would go through Java and back twice.
    """
    # Beyond the end there is nothing, and a hash passes over that.
    grams = (
        "transform(tokens, t -> hash(t))",
        "transform(tokens, (t, place) -> hash(t, get(tokens, place + 1)))",
        "transform(tokens, (t, place) -> hash(t, 1, get(tokens, place + 2)))",
    )
    # A look-ahead takes no character, so the next match begins one further.
    pieces = (
        f"transform(regexp_extract_all(cleaned, r'(?=({'.' * length}))', 1), p -> hash(p, 2))"
        for length in parameters.pieces
    )
    # Two steps, so that a fit can have the grams alone.
    return [
        SQLTransformer(statement=f"SELECT *, concat({expressions}) AS {name} FROM __THIS__")  # noqa: S608 - constants of ours
        for name, expressions in (
            ("grams", ", ".join(grams)),
            ("terms", ", ".join(("grams", *pieces))),
        )
    ]


def presence_stages(buckets: int, *, prefix: str = "") -> tuple[HashingTF, Normalizer]:
    """terms -> presence, a vector of 0 and 1 over the buckets -> lengths, the same of length 1.

    Both names begin with `prefix`.
    """
    presence, lengths = f"{prefix}presence", f"{prefix}lengths"
    return (
        hashing_stage("terms", presence, buckets),
        Normalizer(inputCol=presence, outputCol=lengths),
    )


def hashing_stage(terms: str, presence: str, buckets: int) -> HashingTF:
    """An array of terms -> a vector of 0 and 1 over the buckets that they are hashed to."""
    return HashingTF(inputCol=terms, outputCol=presence, binary=True, numFeatures=buckets)


def fit_weights(
    rows: DataFrame, label: str, *, presence: str, grams: str, lengths: str, output: str
) -> ElementwiseProduct:
    """The stage `lengths` -> `output` that scales each entry by what `rows` say of it.

    By how far its frequencies in the classes are apart, as a log: the log-count ratio of Wang and
    Manning 2012, *Baselines and Bigrams*, where two classes are. Where the ratio says nothing (its
    square times the texts that have it is below 1, about half a standard error) it counts as none.
    To its square comes that of the entry's rarity, so that the regression decides on what is left.
    An entry that one text has, or none, is left out.

    `rows` has `label` and two vectors of 0 and 1 over the buckets: `presence` of all terms, `grams`
    of grams alone. Pieces of one word say the same many times; so that grams are heard, what is in
    their buckets counts more. `lengths` is `presence` of length 1.
    """
    sums = rows.groupBy(label).agg(
        Summarizer.sum(F.col(presence)).alias("terms"),
        Summarizer.sum(F.col(grams)).alias("grams"),
        F.count("*").alias("rows"),
    )
    classes = sums.orderBy(label).collect()
    counts = np.stack([row["terms"].toArray() for row in classes])
    texts = counts.sum(axis=0)
    logarithms = np.log((counts + 1) / (counts + 1).sum(axis=1, keepdims=True))
    ratio = logarithms.max(axis=0) - logarithms.min(axis=0)
    ratio[ratio**2 * texts < 1] = 0.0
    rarity = np.log((sum(row["rows"] for row in classes) + 1) / (texts + 1))
    weights = np.where(texts >= _FEWEST_TEXTS, np.hypot(ratio, _RARITY * rarity), 0.0)
    is_gram = 2 * sum(row["grams"].toArray() for row in classes) > texts
    # Stored as text, so digits that mean nothing would only be bytes.
    weights = np.where(is_gram, _GRAMS_COUNT * weights, weights).round(4)
    return ElementwiseProduct(
        inputCol=lengths, outputCol=output, scalingVec=Vectors.dense(weights.tolist())
    )


def regression_of(
    parameters: PipelineParameters, *, train_rows: int, has_head: bool
) -> LogisticRegression:
    """features -> probability of negative and positive.

    `train_rows` is the number of rows it will be fitted on: Spark's penalty counts against their
    mean, not their sum. Where a head follows, the probability is called polarity, its log odds
    polarity_raw.
    """
    regression = LogisticRegression(
        labelCol="target",
        regParam=1 / (parameters.inverse_regularization * train_rows),
        maxIter=parameters.max_iter,
        standardization=False,
        maxBlockSizeInMB=BLOCK_MB,
    )
    if has_head:
        regression.setProbabilityCol("polarity").setRawPredictionCol("polarity_raw")
        regression.setPredictionCol("polarity_class")
    return regression


def prob_pos() -> Column:
    """Probability of positive where the choice is positive or negative.

    From `probability`: of the two classes, or of three, the neutral one left out.
    """
    probability = vector_to_array(F.col("probability"))
    positive, negative = F.element_at(probability, -1), F.element_at(probability, 1)
    return positive / (positive + negative)


def label_str(low: float, high: float) -> Column:
    """One of `CLASSES`: of a model of three the most probable, else by `prob_pos`.

    A model of two has never seen a neutral text: neutral is what lies between `low` and `high`. In
    both, positive goes with a `prob_pos` of .5 or more, and negative with one of .5 or less.
    """
    probability = vector_to_array(F.col("probability"))
    most_probable = F.element_at(
        F.array(*map(F.lit, CLASSES)),
        F.array_position(probability, F.array_max(probability)).cast("int"),
    )
    by_thresholds = (
        F.when(prob_pos() >= high, "positive")
        .when(prob_pos() <= low, "negative")
        .otherwise("neutral")
    )
    return F.when(F.size(probability) == len(CLASSES), most_probable).otherwise(by_thresholds)


def _with_cleaned_text() -> str:
    """The statement; its literals are raw, so that a backslash is the regex's own.

    Each step is a query of its own, so that what a text does not hold is not searched for.
    """
    query = "SELECT *, coalesce(text, '') AS plain FROM __THIS__"
    for guard, pattern, replacement in (
        ("plain RLIKE r'[.:][A-Za-z/]'", _LINK, " "),
        ("contains(plain, '@')", _HANDLE, " "),
        ("contains(plain, ':')", _CUSTOM_EMOJI, " "),
        ("contains(plain, '#')", _HASHTAG_HUMP, " "),
    ):
        query = _with_plain(query, guard, _replaced("plain", pattern, replacement))
    emoticons = "plain"
    for pattern, word in _EMOTICONS:
        # Between stops: what is negated does not reach the face behind it.
        emoticons = _replaced(emoticons, pattern, f" . {word} . ")
    guard = f"plain RLIKE r'{_EMOTICON}' AND plain RLIKE r\"{_WHOLE_EMOTICON}\""
    query = _with_plain(query, guard, emoticons)
    # Typographic apostrophes are apostrophes.
    lower = "lower(translate(plain, \"’‘ʼ＇#¬\", \"''''  \"))"
    spaced = _replaced(_replaced(lower, _ELONGATION, "$1$1"), _SPACES, " ")
    return (
        f"SELECT * EXCEPT (plain), concat(' ', trim({spaced}), ' ') AS cleaned"  # noqa: S608 - ours
        f" FROM ({query})"
    )


def _with_plain(query: str, guard: str, changed: str) -> str:
    return (
        f"SELECT * EXCEPT (plain),"  # noqa: S608 - constants of ours
        f" CASE WHEN {guard} THEN {changed} ELSE plain END AS plain"
        f" FROM ({query})"
    )


def _with_tokens(letters: str) -> str:
    marked = _replaced("cleaned", _NEGATED, f"$1$2$3{NEGATION_SUFFIX}$4")
    marked = f'CASE WHEN cleaned RLIKE r"{_MAY_NEGATE}" THEN {marked} ELSE cleaned END'
    token = f"{NEGATION_SUFFIX}?{_WORD.format(letters=letters)}|{_MARK}"
    return (
        f"SELECT *, concat(array('{_BEGIN}'),"  # noqa: S608 - constants of ours
        f" regexp_extract_all({marked}, r\"{token}\", 0), array('{_END}')) AS tokens"
        " FROM __THIS__"
    )


def _replaced(expression: str, pattern: str, replacement: str) -> str:
    quote = '"' if "'" in pattern else "'"
    return f"regexp_replace({expression}, r{quote}{pattern}{quote}, '{replacement}')"
