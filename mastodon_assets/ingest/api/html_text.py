"""Conversion of the HTML of a post or a bio to plain text.

What belongs here: the text that a reader would see. Nothing about consent or fields.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from selectolax.lexbor import LexborHTMLParser

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

_BLOCKS = frozenset({"address", "article", "aside", "blockquote", "caption", "center", "details"})
_BLOCKS |= {"dialog", "dir", "div", "dl", "fieldset", "figcaption", "figure", "footer", "form"}
_BLOCKS |= {"h1", "h2", "h3", "h4", "h5", "h6", "header", "hgroup", "hr", "main", "menu", "nav"}
_BLOCKS |= {"ol", "p", "pre", "search", "section", "summary", "table", "ul"}
_LINES = frozenset({"br", "dd", "dt", "legend", "li", "option", "tr"})
_CELLS = frozenset({"td", "th"})
_HIDDEN = frozenset({"script", "style", "template", "title", "iframe", "noembed", "noframes"})
# Parts that are made for machines. Servers put the line "RE: …" before the text of a quote.
_HIDDEN_CLASSES = frozenset({"invisible", "quote-inline"})

_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACES = re.compile(r"[ \t\f\r]+")
_SPACES_AROUND_BREAK = re.compile(r" ?\n ?")
_BREAKS = re.compile(r"\n{3,}")


def html_to_text(html: str, shown_for: Callable[[str], str | None] | None = None) -> str:
    """Return the text that a reader of `html` sees.

    An empty line separates paragraphs, lists and other blocks; a line end separates list items and
    breaks, a space the cells of a table. A line end in the text stays one, as on Mastodon's own
    page. Entities are resolved. Text without tags stays as it is, except for runs of white space. A
    shortened link keeps its visible part and "…": Mastodon marks the parts with the classes
    `invisible` and `ellipsis`. The line "RE: …" of a quote is dropped.

    Args:
        html: A fragment of HTML.
        shown_for: Returns the text to show for a link by its address; None leaves the link.
    """
    # The parser takes UTF-8, which has no half surrogate pairs.
    body = LexborHTMLParser(_SURROGATE.sub("\ufffd", html)).body
    if body is None:
        return ""
    text = _SPACES.sub(" ", "".join(_texts(body, shown_for)))
    text = _SPACES_AROUND_BREAK.sub("\n", text)
    return _BREAKS.sub("\n\n", text).strip()


def _texts(body: "LexborNode", shown_for: Callable[[str], str | None] | None) -> list[str]:
    # Not recursive: the tags of a post may be nested deeper than Python's stack.
    texts: list[str] = []
    waiting: list[LexborNode | str] = [body]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            texts.append(item)
        elif item.tag == "-text":
            texts.append(item.text_content or "")
        elif _is_hidden(item, classes := _classes(item)):
            continue
        elif shown_for is not None and (shown := shown_for(_address(item))) is not None:
            texts.append(shown)
        else:
            before, after = _separators(item, classes)
            texts.append(before)
            waiting.append(after)
            waiting.extend(_children_last_first(item))
    return texts


def _is_hidden(node: "LexborNode", classes: list[str]) -> bool:
    return (
        node.tag is None
        or node.tag.startswith("-")
        or node.tag in _HIDDEN
        or not _HIDDEN_CLASSES.isdisjoint(classes)
    )


def _address(node: "LexborNode") -> str:
    return (node.attributes.get("href") or "") if node.tag == "a" else ""


def _separators(node: "LexborNode", classes: list[str]) -> tuple[str, str]:
    if node.tag in _BLOCKS:
        return "\n\n", "\n\n"
    if node.tag in _LINES:
        return "\n", ""
    if node.tag in _CELLS:
        return " ", " "
    return "", "…" if "ellipsis" in classes else ""


def _classes(node: "LexborNode") -> list[str]:
    return (node.attributes.get("class") or "").split()


def _children_last_first(node: "LexborNode") -> "list[LexborNode]":
    children = []
    child = node.last_child
    while child is not None:
        children.append(child)
        child = child.prev
    return children
