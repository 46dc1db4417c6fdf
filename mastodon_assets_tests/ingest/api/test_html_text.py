import pytest
from hypothesis import given
from hypothesis import strategies as st

from mastodon_assets.ingest.api.html_text import html_to_text

LINK = (
    '<p>see <a href="https://one.example/a/long/way"><span class="invisible">https://</span>'
    '<span class="ellipsis">one.example/a</span><span class="invisible">/long/way</span></a>.</p>'
)


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("", ""),
        ("no tags at all", "no tags at all"),
        ("two\nlines", "two\nlines"),
        ("a &lt; b &amp;&amp; b &gt; c", "a < b && b > c"),
        ("3 < 4 and 5 > 4", "3 < 4 and 5 > 4"),
        ("&#x1F600; &eacute;&nbsp;&hellip;", "😀 é\xa0…"),
        ("<p>one</p><p>two</p>", "one\n\ntwo"),
        ("<p>one</p>\n\n  <p>two</p>\n", "one\n\ntwo"),
        ("<p>one<br>two<br/>three</p>", "one\ntwo\nthree"),
        ("<p>one <br /> two</p>", "one\ntwo"),
        ("<p>a<b>b</b><em>c</em> <i>d</i></p>", "abc d"),
        ("<p>a  \t b</p>", "a b"),
        ("<ul><li>one</li><li>two</li></ul>after", "one\ntwo\n\nafter"),
        ("<blockquote><p>said</p></blockquote><p>answer</p>", "said\n\nanswer"),
        ("<h1>Title</h1>Text", "Title\n\nText"),
        (LINK, "see one.example/a…."),
        ('<a href="#"><span class="a invisible b">x</span>y</a>', "y"),
        ('<p>#<span>tag</span> @<span class="h-card">ada</span></p>', "#tag @ada"),
        ("<script>alert(1)</script><p>a</p><style>p{}</style>", "a"),
        ("<p>a<script>alert(1)</script>b</p>", "ab"),
        ("<p>a<!-- note -->b</p>", "ab"),
        ("<p>never closed", "never closed"),
        ("closed twice</p></p>", "closed twice"),
        ('<p title="a > b">c</p>', "c"),
        ("<frameset>", ""),
        ("<table><tr><th>a</th><th>b</th></tr><tr><td>c</td><td>d</td></tr></table>", "a b\nc d"),
        ("<table><caption>meals</caption><tr><td>soup</td></tr></table>", "meals\n\nsoup"),
        ("<details><summary>spoiler</summary>alert</details>", "spoiler\n\nalert"),
        ("<figure><img><figcaption>a cat</figcaption></figure>after", "a cat\n\nafter"),
        ("<article>one</article><article>two</article>", "one\n\ntwo"),
        ("<header>one</header><main>two</main><footer>three</footer>", "one\n\ntwo\n\nthree"),
        ('<p class="quote-inline">RE: <a href="#">x</a></p><p>so true</p>', "so true"),
        ('<span class="quote-inline"><br>RE: <a href="#">x</a></span>', ""),
    ],
)
def test_html_becomes_what_a_reader_sees(html: str, text: str) -> None:
    assert html_to_text(html) == text


def test_tags_may_be_nested_deeper_than_the_stack() -> None:
    assert html_to_text("<div>" * 20_000 + "deep") == "deep"


def test_characters_that_cannot_be_stored_do_not_stop_it() -> None:
    assert html_to_text("<p>a\ud83db</p>") == "a�b"
    assert html_to_text("<p>a\x00b</p>").startswith("a")
    assert html_to_text("<p>a\x00b</p>").endswith("b")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>&\x00\r")))
def test_words_of_plain_text_survive(text: str) -> None:
    assert html_to_text(text).split() == text.split()


@given(st.text())
def test_any_text_is_taken(html: str) -> None:
    html_to_text(html)
