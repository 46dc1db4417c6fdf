"""HTML of a post or a bio to plain text.

What belongs here: what a reader would see, as text. Nothing about consent or fields.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from selectolax.lexbor import LexborHTMLParser

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

_BLOCKS = frozenset({"blockquote", "div", "dl", "h1", "h2", "h3", "h4", "h5", "h6", "hr"})
_BLOCKS |= {"ol", "p", "pre", "section", "table", "ul"}
_LINES = frozenset({"br", "dd", "dt", "li", "tr"})
_UNSEEN = frozenset({"script", "style", "template", "title", "iframe", "noembed", "noframes"})

_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACES = re.compile(r"[ \t\f\r]+")
_SPACES_AROUND_BREAK = re.compile(r" ?\n ?")
_BREAKS = re.compile(r"\n{3,}")


def html_to_text(html: str, shown_for: Callable[[str], str | None] | None = None) -> str:
    """The text a reader of `html` sees.

    Paragraphs, lists and other blocks are kept apart by an empty line, breaks and list items by a
    line end; a line end in the text stays one, as Mastodon's own page shows it. Entities are
    resolved. Of a shortened link the visible part is left, with "…" where it was cut: Mastodon
    marks the parts with the classes `invisible` and `ellipsis`. Text without tags stays as it is,
    but for runs of white space. `shown_for` says, by its address, what stands in place of a link;
    None leaves it.
    """
    # The parser takes UTF-8, which has no halves of surrogate pairs.
    body = LexborHTMLParser(_SURROGATE.sub("\ufffd", html)).body
    if body is None:
        return ""
    text = _SPACES.sub(" ", "".join(_pieces(body, shown_for)))
    text = _SPACES_AROUND_BREAK.sub("\n", text)
    return _BREAKS.sub("\n\n", text).strip()


def _pieces(body: "LexborNode", shown_for: Callable[[str], str | None] | None) -> list[str]:
    # Not recursive: a post may nest its tags deeper than Python's stack.
    pieces: list[str] = []
    waiting: list[LexborNode | str] = [body]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            pieces.append(item)
        elif item.tag == "-text":
            pieces.append(item.text_content or "")
        elif _is_unseen(item, classes := _classes(item)):
            continue
        elif shown_for is not None and (shown := shown_for(_address(item))) is not None:
            pieces.append(shown)
        else:
            before, after = _separators(item, classes)
            pieces.append(before)
            waiting.append(after)
            waiting.extend(_children_last_first(item))
    return pieces


def _is_unseen(node: "LexborNode", classes: list[str]) -> bool:
    return (
        node.tag is None
        or node.tag.startswith("-")
        or node.tag in _UNSEEN
        or "invisible" in classes
    )


def _address(node: "LexborNode") -> str:
    return (node.attributes.get("href") or "") if node.tag == "a" else ""


def _separators(node: "LexborNode", classes: list[str]) -> tuple[str, str]:
    if node.tag in _BLOCKS:
        return "\n\n", "\n\n"
    if node.tag in _LINES:
        return "\n", ""
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
