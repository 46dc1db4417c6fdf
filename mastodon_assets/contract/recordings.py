"""Files of recorded statuses: which formats they have, and the statuses in them.

What belongs here: how bytes of a file become documents, for `import`, `demo --from` and
`simulate --from`. Read are newline-delimited JSON, a JSON array, the file of mastodon-archive and
Mastodon.py's `to_json`; plain or compressed by gzip or zstd; in UTF-8 or UTF-16, with or without a
byte order mark.
"""

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from json import JSONDecodeError, JSONDecoder
from typing import Any, BinaryIO

from mastodon_assets.errors import PlatformError

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"{\x00", "utf-16-le"),
    (b"[\x00", "utf-16-le"),
    (b"\x00{", "utf-16-be"),
    (b"\x00[", "utf-16-be"),
)
# What reading a damaged file raises.
DAMAGE = (OSError, EOFError, ValueError, RecursionError, zlib.error)
# More than any server sends for one post; a longer line is cut and so is no JSON any more.
MAX_STATUS_BYTES = 16 * 1024 * 1024
# A file that is one JSON document is read as a whole.
_MAX_DOCUMENT_CHARACTERS = 512 * 1024 * 1024
_CHUNK = 64 * 1024
_MASTODON_PY = "_mastopy_data"


class RecordingError(PlatformError):
    """Raised if a file has no statuses that can be read."""


@dataclass(frozen=True)
class Recording:
    """A file of recorded statuses.

    Attributes:
        form: What the file is, for people.
        documents: The statuses as JSON in UTF-8, in the file's order. A line of newline-delimited
            JSON is unchanged, and may be no JSON at all. Reading a damaged file raises one of
            `DAMAGE`.
    """

    form: str
    documents: Iterator[bytes]


def open_recording(file: BinaryIO) -> Recording:
    """Recognize the format of a file of statuses.

    Raises:
        RecordingError: The file is one of another kind; the message says which.
        OSError: The file cannot be read.
    """
    source = _utf8(_decompressed(file))
    start = _skip_blank(source)
    first_line = start + source.readline(MAX_STATUS_BYTES)
    if first_line.startswith(b"["):
        return Recording("a JSON array", _array(_text(first_line, source)))
    if not first_line or _is_line(first_line):
        return _of_lines(first_line, source)
    return _of_document(_text(first_line, source))


def _peekable(file: Any) -> io.BufferedReader:
    # A second reader around a file would close it when it is collected.
    return file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)


def _decompressed(file: BinaryIO) -> Any:
    source = _peekable(file)
    magic = source.peek(len(_ZSTD))
    if magic.startswith(_GZIP):
        return gzip.GzipFile(fileobj=source)
    if magic.startswith(_ZSTD):
        import pyarrow as pa

        return pa.CompressedInputStream(pa.PythonFile(source, "r"), "zstd")
    return source


def _utf8(file: Any) -> io.BufferedReader:
    source = _peekable(file)
    start = source.peek(4)
    for mark, encoding in _ENCODINGS:
        if start.startswith(mark):
            if encoding == "utf-8-sig":
                source.read(len(mark))
                return source
            return io.BufferedReader(_Recoded(source, encoding))
    return source


class _Recoded(io.RawIOBase):
    """The text of a file, encoded as UTF-8."""

    def __init__(self, source: io.BufferedReader, encoding: str) -> None:
        self._source = source
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._waiting = b""

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read up to the size of `buffer`; return the number of bytes."""
        while not self._waiting:
            chunk = self._source.read(_CHUNK)
            text = self._decoder.decode(chunk, final=not chunk)
            self._waiting = text.encode("utf-8", "replace")
            if not chunk:
                break
        size = min(len(buffer), len(self._waiting))
        buffer[:size], self._waiting = self._waiting[:size], self._waiting[size:]
        return size


def _skip_blank(source: io.BufferedReader) -> bytes:
    """Read white space; return the first byte after it, empty at the end of the file."""
    while (byte := source.read(1)) and byte.isspace():
        continue
    return byte


def _text(first_line: bytes, source: io.BufferedReader) -> Iterator[str]:
    """Yield the text of the file in parts."""
    # What is not UTF-8 is refused with its entry, not with the file.
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    yield decoder.decode(first_line)
    while chunk := source.read(_CHUNK):
        yield decoder.decode(chunk)
    yield decoder.decode(b"", final=True)


def _is_line(first_line: bytes) -> bool:
    """Return whether the first line is one entry of newline-delimited JSON."""
    if first_line.strip() == b"{":
        return False
    try:
        document = json.loads(first_line)
    except (ValueError, RecursionError):
        # Damaged, or the start of a document over several lines that begins in an unusual way.
        return True
    return not (isinstance(document, Mapping) and _statuses(document) is not None)


def _of_lines(first_line: bytes, source: io.BufferedReader) -> Recording:
    is_of_mastodon_py = _MASTODON_PY.encode() in first_line
    lines = _lines(first_line, source)
    if not is_of_mastodon_py:
        return Recording("newline-delimited JSON", lines)
    return Recording("newline-delimited JSON of Mastodon.py", _unwrapped(lines))


def _lines(first_line: bytes, source: io.BufferedReader) -> Iterator[bytes]:
    """Yield lines that are not blank, without their ends."""
    line = first_line
    while line:
        if not line.endswith(b"\n"):
            while (rest := source.readline(MAX_STATUS_BYTES)) and not rest.endswith(b"\n"):
                continue
        if stripped := line.strip():
            yield stripped
        line = source.readline(MAX_STATUS_BYTES)


def _unwrapped(lines: Iterator[bytes]) -> Iterator[bytes]:
    for line in lines:
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            yield line
        else:
            yield from _entries([document])


def _array(parts: Iterator[str]) -> Iterator[bytes]:
    """Yield the elements of a JSON array without reading it as a whole."""
    decoder, text = JSONDecoder(), next(parts).removeprefix("[")
    while True:
        text = text.lstrip(" \t\r\n,")
        try:
            document, end = decoder.raw_decode(text)
        except JSONDecodeError as error:
            if text.startswith("]"):
                return
            more = _more(parts, len(text))
            if not more or len(text) > MAX_STATUS_BYTES:
                raise ValueError(f"not JSON: {error.msg}") from error
            text += more
        else:
            yield from _entries([document])
            text = text[end:]


def _more(parts: Iterator[str], size: int) -> str:
    """Return about as much text as there is already, so that no text is parsed too often."""
    found: list[str] = []
    length = 0
    for part in parts:
        found.append(part)
        length += len(part)
        if length >= size and length:
            break
    return "".join(found)


def _of_document(parts: Iterator[str]) -> Recording:
    text = ""
    for part in parts:
        text += part
        if len(text) > _MAX_DOCUMENT_CHARACTERS:
            raise RecordingError(
                "the file is a JSON document of more than 512 MiB; convert it to one status per"
                " line, such as by: jq -c '.statuses[]'"
            )
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        # Something else: each of its lines becomes a dead letter.
        lines = text.encode("utf-8", "surrogateescape").split(b"\n")
        return Recording("newline-delimited JSON", filter(None, map(bytes.strip, lines)))
    if not isinstance(document, Mapping):
        raise RecordingError("the file is JSON, but neither a status nor a list of statuses")
    found = _statuses(document)
    return Recording("a JSON document", _entries([document])) if found is None else found


def _statuses(document: Mapping[str, Any]) -> Recording | None:
    """Return the statuses in a document that contains a list of them; None for a status.

    Raises:
        RecordingError: The document is Mastodon's export, which has no profile of the account.
    """
    if isinstance(document.get("orderedItems"), list):
        raise RecordingError(
            "the file is outbox.json of Mastodon's export: it has no account profiles, which say"
            " whether the author consents; export the posts by the API, such as by mastodon-archive"
        )
    statuses = document.get("statuses")
    if isinstance(statuses, list) and "content" not in document:
        return Recording("a file of mastodon-archive", _entries(statuses, document.get("account")))
    if isinstance(document.get(_MASTODON_PY), list):
        return Recording("a list of Mastodon.py", _entries([document]))
    return None


def _entries(documents: list[Any], account: object = None) -> Iterator[bytes]:
    """Yield each status as JSON, without Mastodon.py's envelope; `account` is the default one."""
    for document in documents:
        if isinstance(document, Mapping) and _MASTODON_PY in document:
            content = document[_MASTODON_PY]
            yield from _entries(content if isinstance(content, list) else [content])
        elif account is not None and isinstance(document, Mapping):
            yield json.dumps({"account": account, **document}).encode("ascii")
        else:
            yield json.dumps(document).encode("ascii")
