"""The synthetic corpus: a small built-in one, so that the platform runs without a download.

What belongs here: words, sentence patterns and how they are combined; the same texts every time. A
model of it separates plain positive from plain negative sentences. Its metrics mean little: the
held-out texts are built from the same patterns.
"""

from collections.abc import Iterator, Sequence

_TEXTS_PER_PATTERN = 60

_THINGS = (
    "this album", "the new phone", "my train home", "the coffee here", "our garden", "the weather",
    "that film", "my code", "the last chapter", "the concert", "this update", "the food",
    "my bike ride", "the hotel", "this game", "the meeting", "my haircut", "the museum",
    "the service", "this book", "the party", "my new keyboard", "the photo I took", "the football",
    "the soup", "the long weekend", "my talk", "the show tonight", "this place", "the morning run",
    "the cat", "my exam",
)  # fmt: skip
_GOOD = (
    "good", "great", "happy", "lovely", "wonderful", "amazing", "fantastic", "beautiful", "perfect",
    "brilliant", "awesome", "excellent", "delightful", "nice", "fun", "fabulous", "gorgeous",
    "superb", "sweet", "cool", "excited", "proud", "glad", "thankful", "lucky", "pleased",
)  # fmt: skip
_BAD = (
    "bad", "terrible", "sad", "awful", "horrible", "boring", "disappointing", "ugly", "broken",
    "useless", "annoying", "dreadful", "miserable", "nasty", "painful", "disgusting", "stupid",
    "pathetic", "lousy", "angry", "upset", "tired", "lonely", "worried", "unhappy", "frustrated",
)  # fmt: skip
# What a thing brings or does: words that follow `no`, `without` or `doesn't`.
_JOYS = ("joy", "hope", "luck", "pleasure", "love", "peace", "comfort", "fun", "talent", "warmth")
_TROUBLES = (
    "problem", "trouble", "stress", "pain", "mess", "mistake", "complaint", "regret", "fear",
    "drama", "waste", "damage",
)  # fmt: skip
_PLEASES = ("work", "help", "please", "shine", "fit", "improve", "impress", "convince", "succeed")
_HURTS = (
    "hurt", "fail", "annoy", "bore", "disappoint", "stink", "suck", "lie", "crash", "worry", "lose",
    "complain",
)  # fmt: skip
# Neutral words, in front of texts of both classes.
_OPENINGS = (
    "", "", "", "today", "honestly,", "so,", "well,", "this morning", "just now", "update:", "hm,",
    "back again:", "on the way home,", "after work", "quick note:", "as always,", "once more:",
)  # fmt: skip
_CLOSINGS = (
    "", "", "", "#monday", "#music", "with my sister", "in the city", "this week", "again", "now",
    "right here", "at the station", "before lunch", "for once", "and that's it", "#diary",
)  # fmt: skip

_POSITIVE = (
    "{thing} is {good}", "{thing} was so {good}", "what a {good} day, {thing} made it",
    "I love {thing}", "I really love {thing}, so {good}", "I like {thing} a lot",
    "I enjoyed {thing}, {good} all the way", "{thing} made me smile", "{thing} cheered me up",
    "I am {good} about {thing}", "I am {good}", "feeling {good} thanks to {thing}",
    "thank you for {thing}, {good}!", "thanks everyone, {thing} turned out {good}",
    "yay, {thing} is back and it's {good}", "can't wait for {thing}, it will be {good}",
    "{thing} is the best, simply {good}", "best day in a long time, {thing} was {good}",
    "so {good} to see {thing}", "hooray for {thing}, how {good}", "{good} news about {thing}!",
    "{thing} is not {bad} at all", "{thing} was not {bad}, I enjoyed it",
    "I am not {bad} any more, {thing} helped", "{thing} isn't {bad}, I like it",
    "nothing {bad} about {thing}, it works and I love it", "I don't hate {thing}, it is {good}",
    "no complaints about {thing}, {good} work", "I have never been so {good}, thanks to {thing}",
    "I recommend {thing}, {good} from start to end", "{thing} finally works, so {good}",
    "laughing about {thing}, what a {good} surprise", "I hope you like {thing}, I find it {good}",
    "we won, {thing} was {good}", "congratulations on {thing}, {good}",
    "{thing}: {good}, simply {good}",
    "{thing} is not {bad}", "not {bad}, {thing}", "I am not {bad}",
    "I'm not {bad} about {thing}", "it's not {bad}", "{thing} was never {bad}",
    "{thing} wasn't {bad}", "not {bad} at all",
    "no {trouble} with {thing}", "{thing} without a {trouble}", "there is no {trouble}, {thing}",
    "{thing} doesn't {hurt}", "it did not {hurt}, {thing}", "{thing} never {hurt}s",
    "{thing} is a {joy}", "there is {joy} in {thing}", "{thing} {please}s",
    "{thing} did {please}",
)  # fmt: skip
_NEGATIVE = (
    "{thing} is {bad}", "{thing} was so {bad}", "what a {bad} day, {thing} ruined it",
    "I hate {thing}", "I really hate {thing}, so {bad}", "I dislike {thing} a lot",
    "I regret {thing}, {bad} all the way", "{thing} made me cry", "{thing} let me down",
    "I am {bad} about {thing}", "I am {bad}", "feeling {bad} because of {thing}",
    "sorry about {thing}, {bad}!", "sigh, {thing} turned out {bad}",
    "ugh, {thing} is back and it's {bad}", "can't stand {thing}, it will be {bad}",
    "{thing} is the worst, simply {bad}", "worst day in a long time, {thing} was {bad}",
    "so {bad} to see {thing}", "shame about {thing}, how {bad}", "{bad} news about {thing}!",
    "{thing} is not {good} at all", "{thing} was not {good}, I hated it",
    "I am not {good} any more, {thing} hurt", "{thing} isn't {good}, I don't like it",
    "nothing {good} about {thing}, it fails and I hate it", "I don't like {thing}, it is {bad}",
    "only complaints about {thing}, {bad} work", "I have never been so {bad}, thanks to {thing}",
    "I can't recommend {thing}, {bad} from start to end", "{thing} still fails, so {bad}",
    "crying about {thing}, what a {bad} surprise", "I wanted to like {thing}, I find it {bad}",
    "we lost, {thing} was {bad}", "I miss {thing}, {bad}", "{thing}: {bad}, simply {bad}",
    "{thing} is not {good}", "not {good}, {thing}", "I am not {good}",
    "I'm not {good} about {thing}", "it's not {good}", "{thing} was never {good}",
    "{thing} wasn't {good}", "not {good} at all",
    "no {joy} with {thing}", "{thing} without {joy}", "there is no {joy} in {thing}",
    "{thing} doesn't {please}", "it did not {please}, {thing}", "{thing} never {please}s",
    "{thing} is a {trouble}", "there is {trouble} with {thing}", "{thing} {hurt}s",
    "{thing} did {hurt}",
)  # fmt: skip


def synthetic_texts() -> Iterator[tuple[str, float]]:
    """Yield several thousand English texts and targets (0 negative, 1 positive)."""
    for target, patterns in ((1.0, _POSITIVE), (0.0, _NEGATIVE)):
        for place, pattern in enumerate(patterns):
            for number in range(_TEXTS_PER_PATTERN):
                yield _compose(pattern, place, number), target


def _compose(pattern: str, place: int, number: int) -> str:
    # Each list is walked with a stride of its own, so that no two texts share all their words.
    sentence = pattern.format(
        thing=_pick(_THINGS, 11 * number + 5 * place),
        good=_pick(_GOOD, number + 3 * place),
        bad=_pick(_BAD, number + 3 * place),
        joy=_pick(_JOYS, number + 3 * place),
        trouble=_pick(_TROUBLES, number + 3 * place),
        please=_pick(_PLEASES, number + 3 * place),
        hurt=_pick(_HURTS, number + 3 * place),
    )
    opening = _pick(_OPENINGS, 5 * number + place)
    closing = _pick(_CLOSINGS, 7 * number + 3 * place)
    return f"{opening} {sentence} {closing}".strip()


def _pick(words: Sequence[str], number: int) -> str:
    return words[number % len(words)]
