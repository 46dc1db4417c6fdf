"""The Spark ML pipeline from text to a probability, with all cleaning inside it.

What belongs here: stages and their parameters. Only stages that plain PySpark loads, and no Python
code per row, so that training, batch and stream treat the same text alike. What does not: the
origin of training texts (`corpus`), the order of a fit (`fit`) and the metrics (`evaluate`).
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

# The languages that the model was measured for: first parts of language tags, lower case.
LANGUAGES = ("en",)
# The values of `label_str`, in the order of a three-class model's probabilities.
CLASSES = ("negative", "neutral", "positive")

# Java regexes for untrusted texts. Each matches only at the start of a run of its characters, so
# none is quadratic. None repeats a group without a bound: Java recurses there, up to a stack
# overflow.
# `www.a.example`, `a.example/path` (what is left of a link with hidden parts), `some-shop.com`.
LINK = (
    r"(?i)\bhttps?://\S+|\bwww\.\S+|(?<![a-z0-9.-])[a-z0-9][a-z0-9.-]*\.(?:[a-z]{2,}/\S*"
    r"|(?:com|org|net|edu|gov|info|io|dev|app|social|online|blog)(?![\w-]))"
)
# `@ada`, `@ada@one.example`, `ada@one.example`.
HANDLE = r"(?U)(?<![\w.+-])[\w.+-]*+@[\w.-]+(?:@[\w.-]+)?"
# `:blobcat_happy:`, but not the middle of `10:30:45`.
CUSTOM_EMOJI = r"(?<!\w):[A-Za-z0-9_+-]{2,}:(?!\w)"
# Parts of a text that say nothing about its language.
NO_LANGUAGE = (LINK, HANDLE, CUSTOM_EMOJI)
# Between the words of `#HappyMonday`.
HASHTAG_HUMP = r"(?U)(?<=\p{Ll})(?=\p{Lu})(?<=#\w{0,80})"
# `soooo` and `sooooooo` are one word, and not `so`.
SPACES = r"(?U)\s{2,}|[\s&&[^ ]]"
ELONGATION = r"(\p{L})\1\1+"
# Emoji and emoticons are replaced by a word of the same meaning. So a corpus with few of them still
# teaches what they mean; Sentiment140's labels were derived from emoticons, which were removed.
EMOTICON_CHARACTER = r"[\x{1F000}-\x{1FAFF}\x{2600}-\x{27BF}:;=<^]"
# Four in five texts with such a character have only a colon in front of a space.
WHOLE_EMOTICON = r"[\x{1F000}-\x{1FAFF}\x{2600}-\x{27BF}]|[:;=]['o-]?[()D\[\]]|<3|\^_*\^"
EMOTICONS = (
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
# Words in the model's scripts, with apostrophes: `don't`, `gr8`, `o'clock`. Latin is always among
# the letters; `a-z` comes first, because looking up a character's script is a search.
WORD = r"[a-z{letters}][a-z{letters}\p{{M}}\p{{N}}]*(?:'[a-z{letters}\p{{M}}]+){{0,3}}"
# Punctuation and numbers, which say something too. Each has a bound, so that a long repetition
# becomes repeated tokens that a model knows.
PUNCTUATION = r"[!?]{1,3}|\.{2,3}|[.,;:()*]|\p{N}{1,4}"
BEGIN, END = "^", "$"
# From a negator to the next punctuation or `but`, each word gets this prefix. `\G` is the end of
# the last match, so the text is walked once.
NEGATION_SUFFIX = "¬"
_NEGATOR = (
    r"(?:not|no|never|nothing|nobody|nowhere|none|nor|neither|without|cannot|hardly|barely"
    r"|(?:ca|do|does|did|is|was|wo|would|could|should|ai|have|has|had|are|were)nt|\p{L}+n't)"
)
NEGATED = (
    rf"(?U)((?<![\w']){_NEGATOR}(?![\w'])|(?!\A)\G)( +)(?!but\b)"
    r"([^\s\p{L}\p{N}.,;:!?()]*+)(?=[\p{L}\p{N}])([^\s.,;:!?()]+)"
)
# Part of every negator; most texts have none and need no search.
MAY_NEGATE = r"n(?:o|ever|either)|n'?t\b|without|hardly|barely"
# Measured on a validation part: rarity gives less than .001 of AUC, a larger weight of word n-grams
# gives .001.
_RARITY = 0.1
_WORD_NGRAM_WEIGHT = 1.75
_FEWEST_TEXTS = 2
# Each iteration goes over all buckets once per block of rows, so few large blocks are faster. At
# this width Spark's default of 1 MB costs more than the rows themselves.
BLOCK_MB = 8.0


@dataclass(frozen=True)
class PipelineParameters:
    """Parameters that are part of the model's version; chosen by measuring on Sentiment140.

    N-grams are hashed to buckets: a vocabulary costs more to build and to look up than it gains. A
    fit holds dozens of numbers per bucket and class in the driver's memory. The three-class head
    has fewer texts to learn from, so it has fewer buckets.

    Attributes:
        character_ngrams: lengths of the character n-grams.
        buckets: buckets of the two-class model.
        head_buckets: buckets of the three-class head.
        inverse_regularization: C, the weight of one row against the penalty.
        head_inverse_regularization: the same for the three-class head.
        max_iter: upper bound of a regression's iterations.
        letters: Java regex classes of the letters that form words.
    """

    character_ngrams: tuple[int, ...] = (4, 6)
    buckets: int = 2**21
    head_buckets: int = 2**19
    inverse_regularization: float = 3.0
    head_inverse_regularization: float = 0.5
    max_iter: int = 70
    letters: str = r"\p{IsLatin}"


# For a few thousand short texts: more buckets and iterations would only cost time.
DEMO_PARAMETERS = PipelineParameters(
    character_ngrams=(5,),
    buckets=2**17,
    head_buckets=2**17,
    inverse_regularization=10.0,
    head_inverse_regularization=1.0,
    max_iter=30,
)


def cleaning_stages(letters: str = PipelineParameters.letters) -> list[Transformer]:
    """Build the stages `text` -> `cleaned`, `tokens`, `words`.

    `cleaned` is the text in lower case without links, handles and custom emoji. `tokens` are words,
    numbers and punctuation, between `^` and `$`; `words` are the words alone. A word after a
    negator has a prefix: `not ¬happy`.
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
    """Build the stages `cleaned`, `tokens` -> `word_ngrams`, `terms`, both arrays of int.

    Word n-grams are single tokens, pairs of neighbours, and pairs with one token between them.
    `terms` are these and the character n-grams, which cross word boundaries. Each term is a hash
    with a number for its kind: strings would be copied into Java and back twice.
    """
    # `get` returns null beyond the end, and a hash ignores null.
    word_ngrams = (
        "transform(tokens, t -> hash(t))",
        "transform(tokens, (t, place) -> hash(t, get(tokens, place + 1)))",
        "transform(tokens, (t, place) -> hash(t, 1, get(tokens, place + 2)))",
    )
    # A look-ahead consumes no character, so the next match begins one character later.
    character_ngrams = (
        f"transform(regexp_extract_all(cleaned, r'(?=({'.' * length}))', 1), p -> hash(p, 2))"
        for length in parameters.character_ngrams
    )
    # Two stages, so that a fit can read the word n-grams alone.
    return [
        SQLTransformer(statement=f"SELECT *, concat({expressions}) AS {name} FROM __THIS__")  # noqa: S608 - constants of ours
        for name, expressions in (
            ("word_ngrams", ", ".join(word_ngrams)),
            ("terms", ", ".join(("word_ngrams", *character_ngrams))),
        )
    ]


def presence_stages(buckets: int, *, prefix: str = "") -> tuple[HashingTF, Normalizer]:
    """Build the stages `terms` -> `presence` -> `normalized`.

    `presence` is a vector of 0 and 1 over the buckets, `normalized` the same vector of length 1.
    Both names begin with `prefix`.
    """
    presence, normalized = f"{prefix}presence", f"{prefix}normalized"
    return (
        hashing_stage("terms", presence, buckets),
        Normalizer(inputCol=presence, outputCol=normalized),
    )


def hashing_stage(terms: str, presence: str, buckets: int) -> HashingTF:
    """Build the stage from an array of terms to a vector of 0 and 1 over their buckets."""
    return HashingTF(inputCol=terms, outputCol=presence, binary=True, numFeatures=buckets)


def fit_weights(
    rows: DataFrame, label: str, *, presence: str, word_ngrams: str, normalized: str, output: str
) -> ElementwiseProduct:
    """Fit the stage `normalized` -> `output` that weights buckets by how they separate the classes.

    The scale is the distance of the bucket's frequencies in the classes, as a logarithm: for two
    classes the log-count ratio of Wang and Manning 2012, *Baselines and Bigrams*. A ratio within
    about half a standard error (its square times the texts is below 1) counts as zero. The square
    of the bucket's rarity is added to the square of the ratio, so that the regression decides
    about the others. A bucket that fewer than two texts have gets zero.

    The character n-grams of one word repeat the same evidence. So a bucket that is mostly hit by
    word n-grams gets a larger scale.

    Args:
        rows: `label` and the next two columns.
        label: column of the class.
        presence: column with a vector of 0 and 1 over the buckets, of all terms.
        word_ngrams: column with the same of word n-grams alone.
        normalized: column with `presence` scaled to length 1, the stage's input.
        output: the stage's output column.
    """
    sums = rows.groupBy(label).agg(
        Summarizer.sum(F.col(presence)).alias("terms"),
        Summarizer.sum(F.col(word_ngrams)).alias("word_ngrams"),
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
    is_word_ngram = 2 * sum(row["word_ngrams"].toArray() for row in classes) > texts
    # Spark stores them as text, where meaningless digits would only take bytes.
    weights = np.where(is_word_ngram, _WORD_NGRAM_WEIGHT * weights, weights).round(4)
    return ElementwiseProduct(
        inputCol=normalized, outputCol=output, scalingVec=Vectors.dense(weights.tolist())
    )


def regression_of(
    parameters: PipelineParameters, *, train_rows: int, has_head: bool
) -> LogisticRegression:
    """Build the regression `features` -> `probability` of negative and positive.

    Args:
        parameters: of these, regularization and iterations.
        train_rows: number of rows of the fit; Spark weighs the penalty against the mean of the
            rows' losses, not their sum.
        has_head: whether a three-class head follows; the probability's column is then `polarity`,
            and that of its log odds `polarity_raw`.
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


def token_pattern(letters: str) -> str:
    """Return the Java regex of a token in a cleaned text whose negated words are marked."""
    return f"{NEGATION_SUFFIX}?{WORD.format(letters=letters)}|{PUNCTUATION}"


def prob_pos() -> Column:
    """Return the probability of positive, given positive or negative.

    Reads `probability`, of two classes, or of three without the neutral one.
    """
    probability = vector_to_array(F.col("probability"))
    positive, negative = F.element_at(probability, -1), F.element_at(probability, 1)
    return positive / (positive + negative)


def label_str(low: float, high: float) -> Column:
    """Return one of `CLASSES`: the most probable of three, or by thresholds of `prob_pos`.

    A two-class model has never seen a neutral text; neutral is then between `low` and `high`. In
    both cases positive has a `prob_pos` of at least .5, negative of at most .5.
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
    """Return the statement; its literals are raw, so a backslash belongs to the regex.

    Each step is a query of its own, so that a regex runs only on texts that its guard matches.
    """
    query = "SELECT *, coalesce(text, '') AS plain FROM __THIS__"
    for guard, pattern, replacement in (
        ("plain RLIKE r'[.:][A-Za-z/]'", LINK, " "),
        ("contains(plain, '@')", HANDLE, " "),
        ("contains(plain, ':')", CUSTOM_EMOJI, " "),
        ("contains(plain, '#')", HASHTAG_HUMP, " "),
    ):
        query = _with_plain(query, guard, _replaced("plain", pattern, replacement))
    emoticons = "plain"
    for pattern, word in EMOTICONS:
        # Between full stops, so that a negation does not reach the emoticon behind it.
        emoticons = _replaced(emoticons, pattern, f" . {word} . ")
    guard = f"plain RLIKE r'{EMOTICON_CHARACTER}' AND plain RLIKE r\"{WHOLE_EMOTICON}\""
    query = _with_plain(query, guard, emoticons)
    # Typographic apostrophes become ASCII ones.
    lower = "lower(translate(plain, \"’‘ʼ＇#¬\", \"''''  \"))"
    spaced = _replaced(_replaced(lower, ELONGATION, "$1$1"), SPACES, " ")
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
    marked = _replaced("cleaned", NEGATED, f"$1$2$3{NEGATION_SUFFIX}$4")
    marked = f'CASE WHEN cleaned RLIKE r"{MAY_NEGATE}" THEN {marked} ELSE cleaned END'
    return (
        f"SELECT *, concat(array('{BEGIN}'),"  # noqa: S608 - constants of ours
        f' regexp_extract_all({marked}, r"{token_pattern(letters)}", 0),'
        f" array('{END}')) AS tokens FROM __THIS__"
    )


def _replaced(expression: str, pattern: str, replacement: str) -> str:
    quote = '"' if "'" in pattern else "'"
    return f"regexp_replace({expression}, r{quote}{pattern}{quote}, '{replacement}')"
