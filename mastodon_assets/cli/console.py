"""What every command prints with: text from the network made safe for a terminal."""


def escaped(payload: bytes) -> str:
    """Text that is safe on a terminal: what is no UTF-8 or not printable stands as an escape."""
    text = payload.decode("utf-8", "backslashreplace")
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
