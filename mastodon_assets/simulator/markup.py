"""HTML as Mastodon writes it in `content` and `note`, one function per element."""

import html

# Mastodon shows this many characters of a link and hides the rest.
_SHOWN_LINK_LENGTH = 30


def text(plain: str) -> str:
    """Escape plain text with Mastodon's entities; line breaks become `<br />`."""
    return html.escape(plain).replace("&#x27;", "&#39;").replace("\n", "<br />")


def paragraphs(parts: list[str]) -> str:
    """Return each part as a paragraph."""
    return "".join(f"<p>{part}</p>" for part in parts)


def hashtag(name: str, domain: str) -> str:
    """Return the link of a hashtag."""
    address = f"https://{domain}/tags/{name.lower()}"
    return f'<a href="{address}" class="mention hashtag" rel="tag">#<span>{name}</span></a>'


def mention(username: str, url: str) -> str:
    """Return the link of a mention."""
    link = f'<a href="{url}" class="u-url mention">@<span>{username}</span></a>'
    return f'<span class="h-card" translate="no">{link}</span>'


def link(url: str) -> str:
    """Return a link; its scheme, and the end of a long one, are in hidden spans."""
    address = html.escape(url)
    bare = url.removeprefix("https://")
    shown, rest = html.escape(bare[:_SHOWN_LINK_LENGTH]), html.escape(bare[_SHOWN_LINK_LENGTH:])
    css_class = "ellipsis" if rest else ""
    return (
        f'<a href="{address}" target="_blank" rel="nofollow noopener noreferrer" translate="no">'
        f'<span class="invisible">https://</span><span class="{css_class}">{shown}</span>'
        f'<span class="invisible">{rest}</span></a>'
    )
