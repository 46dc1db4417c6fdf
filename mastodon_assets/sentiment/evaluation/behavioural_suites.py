"""Behavioural suites: fixed texts that every model is tested on, for negation and abstention.

What belongs here: the sentences and their declared languages; none of them trains a model. Their
figures are a floor for behaviour, and do not measure a model's quality on real posts.
"""

from collections.abc import Collection

from pyspark.sql import SparkSession

from mastodon_assets.sentiment.models.store import LoadedModel
from mastodon_assets.sentiment.scoring.score import score

# One pair per line: the first text should get the higher probability of positive.
_NEGATION = """
I am happy | I am not happy
I'm so happy with my new bike | I'm not so happy with my new bike
We were glad to be there | We were not glad to be there
I feel good this morning | I don't feel good this morning
She is pleased with the result | She isn't pleased with the result
The soup tastes nice | The soup doesn't taste nice
He likes the new teacher | He does not like the new teacher
I love this song | I don't love this song
I really enjoyed the concert | I really didn't enjoy the concert
My day was great | My day was not great
The weather is lovely here | The weather is not lovely here
This phone works well | This phone does not work well
They were friendly to us | They weren't friendly to us
I would recommend this hotel | I wouldn't recommend this hotel
I can sleep well in this bed | I can't sleep well in this bed
The lecture was interesting | The lecture wasn't interesting
You will like it | You won't like it
It was worth the money | It was not worth the money
I'm excited about the trip | I'm not excited about the trip
That was a good idea | That was not a good idea
I am proud of our team | I am not proud of our team
The update makes it better | The update does not make it better
It is fun to play with you | It is no fun to play with you
There is hope for this town | There is no hope for this town
We had luck with the train | We had no luck with the train
I had a good time at the party | I never had a good time at the party
He always makes me smile | He never makes me smile
The film has a great ending | The film has no great ending
The staff was helpful | The staff was never helpful
Everything about it is good | Nothing about it is good
Everybody enjoyed the meal | Nobody enjoyed the meal
I am well again | I am still not well again
It's a cool place to work | It isn't a cool place to work
The children were excited | The children weren't excited
The jokes are funny | The jokes aren't funny
My cat likes the new food | My cat doesn't like the new food
I want to go there again | I don't want to go there again
I could live here happily | I couldn't live here happily
I trust this company | I don't trust this company
I believe in us | I no longer believe in us
The old version was good | The old version was no good
We won the match | We did not win the match
He has improved a lot | He hasn't improved at all
She was kind to me | She wasn't kind to me
The music is perfect for this | The music is not perfect for this
I think it is beautiful | I don't think it is beautiful
I think they did well | I don't think they did well
We can be proud of it | We can't be proud of it
It looks amazing on you | It doesn't look amazing on you
Her voice sounds wonderful | Her voice doesn't sound wonderful
I'd call that a success | I wouldn't call that a success
This is what I hoped for | This is not what I hoped for
I got the job | I did not get the job
It fits me perfectly | It doesn't fit me
My laptop is working again | My laptop is not working again
I'm feeling better today | I'm not feeling better today
It went well | It did not go well
Good morning, I feel rested | Good morning, I don't feel rested
Sunday was relaxing | Sunday was not relaxing at all
He was nice about it | He was not nice about it
The picture is clear and bright | The picture is neither clear nor bright
The plan is clever | The plan is hardly clever
We enjoyed our stay | We hardly enjoyed our stay
The bread was fresh | The bread was barely fresh
They did it with love | They did it without love
We ate with joy | We ate without joy
I'm lucky to have you | I'm not lucky
i like mondays | i dont like mondays
im happy with my grade | im not happy with my grade
that was cool of them | that wasnt cool of them
i can enjoy my holidays | i cant enjoy my holidays
the new menu is good | the new menu isnt good
she did like my present | she didnt like my present
he will be happy | he wont be happy
LOVE THE NEW LOGO | DO NOT LOVE THE NEW LOGO
Happy with my haircut! | Not happy with my haircut!
Impressed by the keynote. | Not impressed by the keynote.
Good. | Not good.
Cool, thanks. | Not cool, thanks.
Really nice of you | Not really nice of you
Amazing! | Not amazing!
Fun | No fun
A great start to the week | Not a great start to the week
Best decision of the year | Not the best decision of the year
Funny | Not funny
Feeling great | Not feeling great
Loving the rain today | Not loving the rain today
Looking forward to tomorrow | Not looking forward to tomorrow
Enjoying the quiet | Not enjoying the quiet
Glad it rained | Not glad it rained
So excited to see you on Friday | Not so excited to see you on Friday
Happy about the news? Yes | Happy about the news? No, not happy
My brother is happy with his car and so am I | My brother is not happy with his car and neither am I
We like the garden, it is pretty | We don't like the garden, it is not pretty
The room was clean and the view was nice | The room wasn't clean and the view wasn't nice
I was happy to help, it was easy | I was not happy to help, it was not easy
My phone is fast and I like it | My phone is not fast and I don't like it
Tea is good for me | Tea is not good for me
The game was thrilling until the end | The game was not thrilling, not even in the end
I like how it looks | I don't like how it looks
I do feel welcome here | I do not feel welcome here
He was a good friend | He was never a good friend
She understands me | She doesn't understand me
You make me happy | You don't make me happy
It is really not bad, I like it | It is bad
It's not bad | It's bad
That's not bad at all | That's bad
The film wasn't bad | The film was bad
The soup is not bad | The soup is bad
Not bad, well done | Bad, not well done
This is not terrible | This is terrible
The weather isn't awful | The weather is awful
I am not sad | I am sad
I'm not sad any more | I'm sad again
I'm not angry with you | I'm angry with you
She isn't upset | She is upset
We weren't disappointed | We were disappointed
I was not disappointed by the sequel | I was disappointed by the sequel
He doesn't hate it | He hates it
I don't hate Mondays | I hate Mondays
It doesn't hurt | It hurts
My head doesn't hurt now | My head hurts now
It doesn't suck | It sucks
The new design doesn't suck | The new design sucks
I'm not tired | I'm tired
I'm not sick any longer | I'm sick
I am not alone tonight | I am alone tonight
He is never rude | He is rude
She never complains, she is lovely | She complains, she is never lovely
There is no problem with it | There is a problem with it
I have no complaints | I have complaints
No regrets | Regrets
No worries, it is fine | Worries, it is not fine
There is nothing wrong with it | There is something wrong with it
Nothing is broken | It is broken
Nothing hurts today | Everything hurts today
It isn't boring | It is boring
The meeting wasn't boring for once | The meeting was boring as ever
The test wasn't hard | The test was hard
The crowd wasn't annoying | The crowd was annoying
It wasn't a waste of time | It was a waste of time
You won't regret it | You will regret it
I don't regret coming here | I regret coming here
We didn't lose | We lost
We did not lose the match | We lost the match
I didn't fail the exam | I failed the exam
The train was not late | The train was late
My flight wasn't cancelled | My flight was cancelled
I'm not worried about it | I'm worried about it
I am not scared of spiders | I am scared of spiders
It's not ugly | It's ugly
That is not stupid | That is stupid
That's not a bad idea | That's a bad idea
Not a bad day | A bad day
Not the worst film I know | The worst film I know
Not too bad for a first try | Too bad for a first try
Not boring at all | Boring
Couldn't be happier | Couldn't be sadder
I can't complain | I must complain
I can't wait to see the show | I can't stand to see the show
can't wait for the weekend | can't face the weekend
never been better | never been worse
I've never felt better | I've never felt worse
Never a dull moment here | A dull moment here
I never get bored with her | I get bored with her
it isnt bad | it is bad
im not mad | im mad
dont be sad | be sad
it wasnt awful | it was awful
he isnt mean | he is mean
I do not feel bad about it | I do feel bad about it
My back isn't aching | My back is aching
The dentist did not hurt me | The dentist hurt me
I wouldn't say I hate it | I would say I hate it
I don't think it's ugly | I think it's ugly
I don't find it annoying | I find it annoying
This isn't horrible | This is horrible
The service was not slow | The service was slow
My coffee isn't cold | My coffee is cold
My room is not a mess | My room is a mess
The milk hasn't gone bad | The milk has gone bad
I haven't been ill this year | I have been ill this year
They haven't ruined it | They have ruined it
It did not disappoint | It did disappoint
This band never disappoints | This band disappoints
The view does not disappoint | The view disappoints
He wasn't unkind | He was unkind
It is not unpleasant | It is unpleasant
I'm not unhappy with it | I'm unhappy with it
Not sad, but happy | Not happy, but sad
It is good, not bad | It is bad, not good
I like it, I don't hate it | I hate it, I don't like it
Not broken but beautiful | Not beautiful but broken
She is happy, not lonely | She is lonely, not happy
They were nice and not rude | They were rude and not nice
We left happy and not hungry | We left hungry and not happy
It's a pleasure, not a pain | It's a pain, not a pleasure
The food is great, no wonder they are full | The food isn't great, no wonder they are empty
I am happy that you came | I am unhappy that you didn't come
thanks for not being mean | thanks for being mean
"""


_NO_WORDS = (
    "", " ", "\n\t ", "\u200b", "...", "?!", "12345", "10:30", "1,000.50 + 2 = 1,002.50", "---",
    "https://one.example/a/great/day", "http://one.example", "www.happy.example",
    "https://one.example/love https://two.example/hate?x=1", "love.example/sad/path",
    "great-shop.com", "@ada", "@ada@one.example", "@happy @sad@two.example", "ada@one.example",
    ":blobcat_happy:", ":sad_cat: :party:", "@ada https://one.example :heart:", "#123", "# 1 2 3",
    "(https://one.example/wonderful)", "@ada: https://one.example/awful!",
    "100 %", "€ 5", "[1] (2)",
)  # fmt: skip
_OTHER_SCRIPTS = {
    "am": ("በጣም ጥሩ ነው",), "ar": ("أنا سعيد جدا اليوم", "هذا سيء جدا"), "bg": ("Много ми харесва",),
    "bn": ("আমি খুব খুশি",), "el": ("Σήμερα είμαι χαρούμενος", "Δεν μου αρέσει"),
    "fa": ("امروز هوا خوب است",), "he": ("אני שמח מאוד", "זה נורא"), "hi": ("मैं बहुत खुश हूँ",),
    "hy": ("Շատ լավ է",), "ja": ("今日はとても楽しかったです", "猫はかわいい", "悲しい"),
    "ka": ("ძალიან კარგი",), "ko": ("오늘은 정말 행복해요", "너무 슬퍼요"),
    "ru": ("Мне грустно", "Привет"),
    "sr": ("Веома сам срећан",), "ta": ("மிகவும் நன்று",), "th": ("วันนี้มีความสุขมาก", "แย่มาก"),
    "uk": ("Дуже добре, дякую",), "zh": ("今天天气很好", "我很难过", "太可怕了"),
}  # fmt: skip


def negation_pairs() -> list[tuple[str, str]]:
    """Return pairs of English texts; the first is the more positive one."""
    pairs = (line.split(" | ") for line in _NEGATION.strip().splitlines())
    return [(better, worse) for better, worse in pairs]


def abstention_texts(served: Collection[str]) -> list[tuple[str, str]]:
    """Return text and declared language of texts that a model of these languages cannot score.

    Each text is declared in its own language, as English, and as undetermined.
    """
    without_words = [(text, declared) for text in _NO_WORDS for declared in ("en", "und")]
    foreign = [
        (text, declared)
        for language, texts in _OTHER_SCRIPTS.items()
        if language not in served
        for text in texts
        for declared in (language, "en", "und")
    ]
    return [*without_words, *foreign]


def suite_figures(spark: SparkSession, model: LoadedModel) -> dict[str, dict[str, float]]:
    """Score the suites as posts are scored, with the language check.

    Returns:
        `negation`: `rows`, the number of pairs, and `accuracy`, the share in the right order.
        `abstention`: `rows`, and `share`, that of texts without a label.
    """
    pairs, unscorable = negation_pairs(), abstention_texts(model.languages)
    texts = [(text, "en") for pair in pairs for text in pair] + unscorable
    rows = spark.createDataFrame(
        [(place, text, lang) for place, (text, lang) in enumerate(texts)],
        "place int, text string, lang string",
    )
    scored = score(rows, model, low=0.5, high=0.5).select("place", "prob_pos").collect()
    found = {row["place"]: row["prob_pos"] for row in scored}
    ordered = sum(_is_above(found[2 * pair], found[2 * pair + 1]) for pair in range(len(pairs)))
    unlabelled = sum(found[2 * len(pairs) + place] is None for place in range(len(unscorable)))
    return {
        "negation": {"rows": len(pairs), "accuracy": ordered / len(pairs)},
        "abstention": {"rows": len(unscorable), "share": unlabelled / len(unscorable)},
    }


def _is_above(better: float | None, worse: float | None) -> bool:
    return better is not None and worse is not None and better > worse
