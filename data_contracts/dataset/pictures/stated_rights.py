"""What an image file states of its own against training: one list of fixed phrases.

In this order: XMP, IPTC keywords, Content Credentials, texts of PNG and comments. Nothing that a
file states permits anything: permission is the licence of the record.
"""

from collections.abc import Iterator

from data_contracts.dataset.pictures.containers import Part, parts_of
from data_contracts.dataset.pictures.content_credentials import stated_in_jumbf
from data_contracts.dataset.pictures.words import directive_in, keyword_in, prohibition_in
from data_contracts.dataset.pictures.xmp import stated_in_xmp

MOST_PHRASES = 5
_ORDER = ("xmp", "iptc", "jumbf", "text")
_KEYWORDS, _KEYWORDS_OF_IPTC = b"keywords", b"\x1c\x02\x19"
_DIRECTIVE_TEXTS = frozenset({b"robots", b"x-robots-tag", b"comment"})
_FALSE = frozenset({"0", "false", "no", "off"})
_MOST_TEXT = 64 * 1024
_MOST_KEYWORDS, _MOST_KEYWORD_BYTES = 10_000, 64


def stated_opt_outs(data: bytes) -> tuple[str, ...]:
    """What the bytes of an image file state against training; empty where they state nothing."""
    parts = sorted(parts_of(data), key=lambda part: _ORDER.index(part.kind))
    phrases = dict.fromkeys(phrase for part in parts for phrase in _stated(part))
    return tuple(phrases)[:MOST_PHRASES]


def _stated(part: Part) -> Iterator[str]:
    match part.kind:
        case "xmp":
            yield from stated_in_xmp(part.data)
        case "iptc":
            yield from _stated_in_iptc(part.data)
        case "jumbf":
            yield from stated_in_jumbf(part.data)
        case "text":
            yield from _stated_in_text(part)


def _stated_in_iptc(data: bytes) -> Iterator[str]:
    """Keywords of IPTC-IIM 4.2, data set 2:25, wherever they stand among Photoshop's resources."""
    place = data.find(_KEYWORDS_OF_IPTC)
    for _ in range(_MOST_KEYWORDS):
        if place < 0:
            return
        begin = place + 5
        size = min(int.from_bytes(data[place + 3 : begin]), _MOST_KEYWORD_BYTES)
        if (word := keyword_in(data[begin : begin + size].decode("utf-8", "replace"))) is not None:
            yield f"IPTC keyword {word}"
        place = data.find(_KEYWORDS_OF_IPTC, begin)


def _stated_in_text(part: Part) -> Iterator[str]:
    name, text = part.name.lower(), part.data[:_MOST_TEXT].decode("utf-8", "replace")
    if name in _DIRECTIVE_TEXTS and (word := directive_in(text)) is not None:
        yield f"text {word}"
    elif name == _KEYWORDS and (word := keyword_in(text)) is not None:
        yield f"keyword {word}"
    elif name in (b"noai", b"noimageai") and text.strip().lower() not in _FALSE:
        yield f"text {name.decode()}"
    elif (value := prohibition_in(f"{part.name.decode('latin-1')} {text}")) is not None:
        yield f"text {value}"
