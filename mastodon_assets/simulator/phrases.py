"""The words of synthetic toots, per language and mood. All of it is written for this simulator.

What belongs here: sentences, noun phrases, hashtags, names. How a toot is composed from them is in
`statuses`. `{thing}` is replaced by a noun phrase of the toot's topic. In each sentence it is a
subject or a direct object, so gender and number do not matter.
"""

from dataclasses import dataclass
from typing import Literal

Mood = Literal["positive", "negative", "neutral"]

# Topic: its share of the posts, and the hashtags people put under it.
TOPICS: dict[str, tuple[int, tuple[str, ...]]] = {
    "photography": (26, ("Photography", "Photography", "StreetPhotography")),
    "cats": (14, ("Caturday", "CatsOfMastodon")),
    "code": (12, ("OpenSource", "Python")),
    "books": (11, ("Bookstodon", "AmReading")),
    "trains": (9, ("Trains", "PublicTransport")),
    "garden": (9, ("Gardening", "Garden")),
    "music": (8, ("NowPlaying", "Vinyl")),
    "bikes": (5, ("Cycling", "BikeTooter")),
    "coffee": (4, ("Coffee",)),
    "weather": (2, ("Weather",)),
}


@dataclass(frozen=True)
class Phrasebook:
    """What people of one language write. `tails` may follow any sentence of their mood."""

    sentences: dict[Mood, tuple[str, ...]]
    tails: dict[Mood, tuple[str, ...]]
    things: dict[str, tuple[str, ...]]


EMOJI: dict[Mood, tuple[str, ...]] = {
    "positive": ("😊", "🎉", "❤️", "🥰", "✨", "😂", "👍", "☀️", "🙌🏽", "😻"),
    "negative": ("😡", "😢", "💔", "😞", "🤬", "👎", "😩", "🌧️", "😭", "🤦🏻‍♀️"),
    "neutral": ("🤔", "📷", "🚆", "📚", "👀", "🗓️", "☕", "🐈‍⬛", "🎧", "🌍"),
}

# Posts without a declared language: scores, symbols, numbers.
WITHOUT_WORDS: tuple[str, ...] = (
    "3 : 2 🎉",
    "1. e4 c5 2. Nf3 d6 3. d4 ♟️",
    "🌧️🌧️🌧️☕",
    "21.4 °C / 63 % / 1013 hPa",
    "🟩🟨⬛⬛🟩 4/6",
    "!!!",
    "🐈‍⬛ + 📦 = 😻",
    "12:04 → 12:51 → 13:20",
    "𝟚𝟘𝟚𝟞 🎯",
)

FIRST_NAMES: dict[str | None, tuple[str, ...]] = {
    "en": ("nora", "elliot", "priya", "sam", "tessa", "owen", "maggie", "theo", "ruby", "callum"),
    "de": ("lena", "jonas", "frieda", "matthis", "anke", "torben", "silke"),
    "fr": ("camille", "bastien", "elodie", "yann", "solene", "gaspard"),
    "es": ("lucia", "mateo", "carmen", "joaquin", "ines", "rafael"),
    "ja": ("haruka", "kenta", "yui", "sora", "mei"),
    "pt": ("beatriz", "thiago", "joana", "caio"),
    "it": ("chiara", "lorenzo", "giulia", "dario"),
    "ru": ("katya", "pasha", "vera", "ilya"),
    "ar": ("layla", "omar", "huda", "karim"),
    None: ("kit", "jules", "robin"),
}
NICKNAMES: tuple[str, ...] = (
    "paints",
    "reads",
    "outside",
    "codes",
    "ontherails",
    "bakes",
    "and_cats",
    "listens",
    "pedals",
    "grows",
    "in_the_rain",
    "at_night",
    "draws",
    "wanders",
    "tinkers",
    "brews",
    "snaps",
    "sings",
)
REMOTE_DOMAINS: tuple[str, ...] = (
    "garden.example",
    "rails.example",
    "bookclub.example",
    "photo.example",
    "kaffee.example",
    "lumiere.example",
    "plaza.example",
    "hanami.example",
    "tinkers.example",
    "harbour.example",
    "social.university.example",
    "cats.example",
)
LINK_PATHS: tuple[str, ...] = (
    "/2026/11/what-we-learned-from-a-year-of-night-trains",
    "/posts/a-short-guide-to-pruning-roses-in-autumn",
    "/albums/harbour-at-dawn",
    "/releases/1.4",
    "/reviews/the-lighthouse-keepers-second-daughter?ref=fediverse&page=2",
    "/notes/42",
)

ENGLISH = Phrasebook(
    sentences={
        "positive": (
            "I am so happy with {thing} today!",
            "I absolutely love {thing}, it made my whole week.",
            "{Thing} turned out great, thank you everyone for the help!",
            "Honestly, {thing} is the best thing that happened to me this month.",
            "What a wonderful day, and {thing} was the highlight.",
            "{Thing}: beautiful, simply beautiful.",
            "Can't stop smiling about {thing}.",
            "I have never been so pleased with {thing}.",
            "{Thing} isn't bad at all, I really enjoy it.",
            "Good morning! {Thing} cheered me up right away.",
            "Finally some time for {thing}, feeling proud and excited!",
            "Thanks to a kind stranger {thing} is safe again, people are awesome.",
            "Nothing to complain about, {thing} is just perfect.",
            "So excited to share {thing} with you all, hope you like it!",
            "{Thing} & a free afternoon. Life is good <3",
            "Great news: {thing} is even better than I hoped.",
        ),
        "negative": (
            "I am not happy with {thing} at all.",
            "I hate {thing}. Worst part of my day.",
            "{Thing} let me down again and nobody seems to care.",
            "Honestly, {thing} is a huge disappointment.",
            "So sad about {thing} today, I could cry.",
            "{Thing}: terrible, just terrible.",
            "I don't like {thing} anymore, it makes me miserable.",
            "Never again. {Thing} ruined the whole evening.",
            "{Thing} isn't good, it isn't even okay.",
            "Feeling sick and tired, and {thing} makes it worse.",
            "Why is {thing} always so awful on a Monday?",
            "Lost three hours because of {thing}, I am so angry.",
            "I miss the old days, {thing} just hurts now.",
            "{Thing} failed me once more. I can't believe how bad this is.",
            "Ugh, {thing} is cancelled. I'm really upset.",
            "Sorry to say it, but {thing} was boring and far too expensive.",
        ),
        "neutral": (
            "Does anyone know where {thing} comes from?",
            "{Thing}, seen this afternoon.",
            "Today's plan: {thing}, then groceries, then dinner at seven.",
            "Notes about {thing}, part two of four.",
            "Moved {thing} from the first floor to the second.",
            "Question for the weekend: how often do you look at {thing}?",
            "{Thing} starts at 18:30 on Thursday.",
            "I wrote down a few numbers about {thing}.",
            "Comparing {thing} with last year's.",
            "There is a new page about {thing} in the wiki.",
            "According to the timetable {thing} is next.",
            "A short thread on {thing} (1/3)",
        ),
    },
    tails={
        "positive": (
            "Thank you!",
            "Yay!",
            "Made my day.",
            "What a lovely surprise.",
            "I feel lucky.",
            "Would do it again in a heartbeat.",
            "Best Sunday in a long while.",
            "Hugs to you all.",
        ),
        "negative": (
            "I give up.",
            "What a waste of time.",
            "So frustrating.",
            "I want my money back.",
            "Not amused.",
            "Can this week just end?",
            "I'm done.",
            "It keeps me awake at night.",
        ),
        "neutral": (
            "More tomorrow.",
            "Details below.",
            "It is Tuesday, I think.",
            "Sources in the replies.",
            "See the second picture.",
            "Boosts welcome.",
            "As of this morning.",
        ),
    },
    things={
        "photography": (
            "my old film camera",
            "this picture of the harbour",
            "the light over the bridge",
            "my first darkroom print",
            "the new 35 mm lens",
        ),
        "cats": (
            "the neighbour's cat",
            "my grumpy old cat",
            "the kitten from the shelter",
            "the cat on the keyboard",
        ),
        "code": (
            "our test suite",
            "the new release",
            "this pull request",
            "the upgrade to the latest version",
            "my little parser",
        ),
        "books": (
            "this novel",
            "the book club",
            "the last chapter",
            "the library downtown",
            "that biography",
        ),
        "trains": (
            "the night train",
            "the 7:42 to the coast",
            "the new tram line",
            "the replacement bus",
        ),
        "garden": (
            "the tomato bed",
            "my balcony garden",
            "the rose by the gate",
            "the compost heap",
        ),
        "music": ("the new record", "last night's concert", "my choir", "that song on the radio"),
        "bikes": ("my commute by bike", "the new bike lane", "the ride around the lake"),
        "coffee": ("the coffee at the corner", "my espresso machine", "this flat white"),
        "weather": ("the rain", "the first snow", "this foggy morning"),
    },
)

GERMAN = Phrasebook(
    sentences={
        "positive": (
            "{Thing} macht mich heute richtig glücklich!",
            "Wie schön: {thing}.",
            "{Thing} ist einfach wunderbar geworden, danke euch allen.",
            "Ich freue mich so, {thing} ist wieder da!",
            "Gar nicht schlecht! {Thing} gefällt mir sehr.",
        ),
        "negative": (
            "{Thing} ist eine einzige Enttäuschung.",
            "Ich bin gar nicht froh: {thing} ist schon wieder kaputt.",
            "Schrecklich. {Thing} hat mir den Tag verdorben.",
            "{Thing} nervt mich nur noch.",
            "Schade, {thing} fällt heute aus.",
        ),
        "neutral": (
            "{Thing}, gesehen am Nachmittag.",
            "Weiß jemand, woher {thing} kommt?",
            "{Thing} beginnt am Donnerstag um 18:30 Uhr.",
            "Ein paar Notizen, Thema: {thing}.",
        ),
    },
    tails={
        "positive": ("Was für ein Tag!", "Danke!", "Ich könnte die Welt umarmen."),
        "negative": ("Mir reicht's.", "So ein Ärger.", "Ich mag nicht mehr."),
        "neutral": ("Mehr dazu morgen.", "Quellen folgen.", "Stand heute früh."),
    },
    things={
        "photography": ("das Foto vom Hafen", "meine alte Kamera"),
        "cats": ("die Katze der Nachbarin", "unser alter Kater"),
        "code": ("die neue Version", "unser Testlauf"),
        "books": ("dieser Roman", "die Stadtbücherei"),
        "trains": ("der Nachtzug", "die neue Straßenbahn"),
        "garden": ("das Tomatenbeet", "mein Balkon"),
        "music": ("das Konzert von gestern", "der Chor"),
        "bikes": ("der Radweg am Fluss",),
        "coffee": ("der Kaffee an der Ecke",),
        "weather": ("der erste Schnee", "dieser Nebel"),
    },
)

FRENCH = Phrasebook(
    sentences={
        "positive": (
            "J'adore {thing}, quelle belle journée !",
            "{Thing} me rend tellement heureuse aujourd'hui.",
            "Quel bonheur, {thing} !",
            "Rien à redire, {thing}, c'est parfait.",
        ),
        "negative": (
            "Je n'aime plus du tout {thing}.",
            "{Thing}, quelle déception...",
            "Encore en panne : {thing}. J'en ai assez.",
            "Je déteste {thing}, c'est vraiment nul.",
        ),
        "neutral": (
            "{Thing}, vu cet après-midi.",
            "Quelques notes : {thing}.",
            "Qui connaît {thing} ?",
        ),
    },
    tails={
        "positive": ("Merci à vous !", "Que du plaisir."),
        "negative": ("C'est triste.", "Quel gâchis."),
        "neutral": ("La suite demain.", "À lire ce soir."),
    },
    things={
        "photography": ("cette photo du port", "mon vieil appareil"),
        "cats": ("le chat de la voisine", "mon chaton"),
        "code": ("la nouvelle version", "mon petit programme"),
        "books": ("ce roman", "la bibliothèque du quartier"),
        "trains": ("le train de nuit", "le tram"),
        "garden": ("le potager", "mon rosier"),
        "music": ("ce disque", "la chorale"),
        "bikes": ("la piste cyclable",),
        "coffee": ("le café du coin",),
        "weather": ("la pluie", "la neige"),
    },
)

SPANISH = Phrasebook(
    sentences={
        "positive": (
            "¡Me encanta {thing}, qué alegría!",
            "{Thing} me ha alegrado el día.",
            "No está nada mal: {thing} es una maravilla.",
            "¡Por fin! {Thing}, qué bonito.",
        ),
        "negative": (
            "No me gusta nada {thing}.",
            "{Thing} es un desastre, qué tristeza.",
            "Odio {thing}, me ha arruinado la tarde.",
            "Otra vez lo mismo: {thing} no funciona.",
        ),
        "neutral": (
            "{Thing}, esta tarde.",
            "¿Alguien conoce {thing}?",
            "Apuntes de hoy: {thing}.",
        ),
    },
    tails={
        "positive": ("¡Gracias!", "Qué gran día."),
        "negative": ("Estoy harta.", "Qué pena."),
        "neutral": ("Mañana más.", "Datos de esta mañana."),
    },
    things={
        "photography": ("esta foto del puerto", "mi cámara vieja"),
        "cats": ("el gato del vecino", "mi gata"),
        "code": ("la nueva versión", "mi programa"),
        "books": ("esta novela", "la biblioteca del barrio"),
        "trains": ("el tren nocturno", "el tranvía"),
        "garden": ("el huerto", "mi balcón"),
        "music": ("este disco", "el concierto de ayer"),
        "bikes": ("el carril bici",),
        "coffee": ("el café de la esquina",),
        "weather": ("la lluvia", "la niebla"),
    },
)

JAPANESE = Phrasebook(
    sentences={
        "positive": (
            "{thing}、最高でした！",
            "{thing}が大好きです。嬉しい。",
            "{thing}のおかげで今日は幸せ。",
            "{thing}、本当にきれい。",
        ),
        "negative": (
            "{thing}にはがっかりした。",
            "{thing}が嫌いになりそう…悲しい。",
            "また{thing}か。もう疲れた。",
            "{thing}、全然よくない。",
        ),
        "neutral": (
            "{thing}。今日の午後。",
            "{thing}についてのメモ。",
            "{thing}を知っていますか？",
        ),
    },
    tails={
        "positive": ("ありがとう！", "いい一日。"),
        "negative": ("残念です。", "つらい。"),
        "neutral": ("続きは明日。", "以上。"),
    },
    things={
        "photography": ("港の写真", "古いカメラ"),
        "cats": ("隣の猫", "うちの猫"),
        "code": ("新しいバージョン", "テスト"),
        "books": ("この小説", "図書館"),
        "trains": ("夜行列車", "路面電車"),
        "garden": ("庭のトマト", "ベランダのバラ"),
        "music": ("昨日のコンサート", "新しいレコード"),
        "bikes": ("自転車通勤",),
        "coffee": ("角の喫茶店",),
        "weather": ("雨", "初雪"),
    },
)

PORTUGUESE = Phrasebook(
    sentences={
        "positive": (
            "Adoro {thing}, que alegria!",
            "{Thing} fez o meu dia.",
            "Que lindo: {thing}!",
        ),
        "negative": (
            "Não gosto nada de ver {thing} assim.",
            "{Thing}, que desilusão.",
            "Odeio {thing}.",
        ),
        "neutral": ("{Thing}, hoje à tarde.", "Alguém conhece {thing}?"),
    },
    tails={
        "positive": ("Obrigada!",),
        "negative": ("Que tristeza.",),
        "neutral": ("Amanhã há mais.",),
    },
    things={
        "photography": ("esta foto do porto", "a minha câmara"),
        "cats": ("o gato da vizinha",),
        "code": ("a nova versão",),
        "books": ("este romance",),
        "trains": ("o comboio da noite",),
        "garden": ("a minha horta",),
        "music": ("o concerto de ontem",),
        "bikes": ("a ciclovia",),
        "coffee": ("o café da esquina",),
        "weather": ("a chuva",),
    },
)

ITALIAN = Phrasebook(
    sentences={
        "positive": (
            "Adoro {thing}, che gioia!",
            "{Thing} mi ha rallegrato la giornata.",
            "Che bello, {thing}!",
        ),
        "negative": (
            "Non sopporto più {thing}.",
            "{Thing}, che delusione.",
            "Odio {thing}, che rabbia.",
        ),
        "neutral": ("{Thing}, oggi pomeriggio.", "Qualcuno conosce {thing}?"),
    },
    tails={
        "positive": ("Grazie a tutti!",),
        "negative": ("Che tristezza.",),
        "neutral": ("Il resto domani.",),
    },
    things={
        "photography": ("questa foto del porto", "la mia vecchia macchina fotografica"),
        "cats": ("il gatto della vicina",),
        "code": ("la nuova versione",),
        "books": ("questo romanzo",),
        "trains": ("il treno di notte",),
        "garden": ("il mio orto",),
        "music": ("il concerto di ieri",),
        "bikes": ("la pista ciclabile",),
        "coffee": ("il caffè all'angolo",),
        "weather": ("la pioggia",),
    },
)

RUSSIAN = Phrasebook(
    sentences={
        "positive": (
            "{Thing} — это просто чудо!",
            "Как же радует {thing}.",
            "{Thing} сегодня лучше всех!",
        ),
        "negative": (
            "{Thing} — сплошное разочарование.",
            "Совсем не радует {thing}.",
            "Опять {thing}, ужас.",
        ),
        "neutral": ("{Thing}, сегодня днём.", "Кто знает, откуда {thing}?"),
    },
    tails={
        "positive": ("Спасибо всем!",),
        "negative": ("Очень грустно.",),
        "neutral": ("Продолжение завтра.",),
    },
    things={
        "photography": ("снимок гавани", "старая камера"),
        "cats": ("соседский кот",),
        "code": ("новая версия",),
        "books": ("этот роман",),
        "trains": ("ночной поезд",),
        "garden": ("мой огород",),
        "music": ("вчерашний концерт",),
        "bikes": ("велодорожка у реки",),
        "coffee": ("кофе на углу",),
        "weather": ("первый снег",),
    },
)

ARABIC = Phrasebook(
    sentences={
        "positive": ("أحب {thing} كثيرا!", "يا لها من سعادة: {thing}.", "اليوم جميل مع {thing}."),
        "negative": ("لا أحب {thing} أبدا.", "أنا حزين جدا: {thing}.", "أكره {thing}."),
        "neutral": ("{thing}، بعد ظهر اليوم.", "من يعرف {thing}؟"),
    },
    tails={
        "positive": ("شكرا لكم!",),
        "negative": ("يا للأسف.",),
        "neutral": ("البقية غدا.",),
    },
    things={
        "photography": ("صورة الميناء",),
        "cats": ("قطة الجيران",),
        "code": ("الإصدار الجديد",),
        "books": ("هذه الرواية",),
        "trains": ("قطار الليل",),
        "garden": ("حديقتي الصغيرة",),
        "music": ("حفلة أمس",),
        "bikes": ("طريق الدراجات",),
        "coffee": ("قهوة الصباح",),
        "weather": ("المطر",),
    },
)

PHRASEBOOKS: dict[str, Phrasebook] = {
    "en": ENGLISH,
    "de": GERMAN,
    "fr": FRENCH,
    "es": SPANISH,
    "ja": JAPANESE,
    "pt": PORTUGUESE,
    "it": ITALIAN,
    "ru": RUSSIAN,
    "ar": ARABIC,
}

# Share of the posts in per cent; None is a post without a declared language.
LANGUAGE_SHARES: dict[str | None, int] = {
    "en": 60,
    "de": 9,
    "fr": 7,
    "es": 7,
    "ja": 5,
    "pt": 3,
    "it": 3,
    "ru": 2,
    "ar": 2,
    None: 2,
}
