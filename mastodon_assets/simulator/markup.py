"""HTML as Mastodon writes it in `content` and `note`, one function an element."""

import html

# Mastodon shows this much of a link and hides the rest.
_SHOWN_LINK_LENGTH = 30


def text(plain: str) -> str:
    """Plain text with `& < > " '` as Mastodon's entities; line breaks become `<br />`."""
    return html.escape(plain).replace("&#x27;", "&#39;").replace("\n", "<br />")


def paragraphs(parts: list[str]) -> str:
    return "".join(f"<p>{part}</p>" for part in parts)


def hashtag(name: str, domain: str) -> str:
    address = f"https://{domain}/tags/{name.lower()}"
    return f'<a href="{address}" class="mention hashtag" rel="tag">#<span>{name}</span></a>'


def mention(username: str, url: str) -> str:
    link = f'<a href="{url}" class="u-url mention">@<span>{username}</span></a>'
    return f'<span class="h-card" translate="no">{link}</span>'


def link(url: str) -> str:
    """A link whose scheme and, when long, end are in spans that are not shown."""
    address = html.escape(url)
    bare = url.removeprefix("https://")
    shown, rest = html.escape(bare[:_SHOWN_LINK_LENGTH]), html.escape(bare[_SHOWN_LINK_LENGTH:])
    css_class = "ellipsis" if rest else ""
    return (
        f'<a href="{address}" target="_blank" rel="nofollow noopener noreferrer" translate="no">'
        f'<span class="invisible">https://</span><span class="{css_class}">{shown}</span>'
        f'<span class="invisible">{rest}</span></a>'
    )
