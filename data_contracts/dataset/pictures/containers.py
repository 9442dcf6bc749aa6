"""Where an image file keeps what it states of itself: the parts of a JPEG, PNG, WebP or GIF.

Only the frame of the file is followed, each part once; nothing is decoded but text that a PNG has
compressed, up to `MAX_TEXT_BYTES` in all. A frame that breaks off ends the list: no reader of such
files would find what is behind it either.
"""

import zlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

MAX_TEXT_BYTES = 8 * 1024 * 1024
"""Of all compressed texts of a file together, and of an XMP packet that is still parsed."""

Kind = Literal["xmp", "xmp part", "iptc", "jumbf", "jumbf part", "text"]


class Part(NamedTuple):
    """`name` is the keyword of a text, or where a part belongs; empty for others."""

    kind: Kind
    data: bytes
    name: bytes = b""


_PNG = b"\x89PNG\r\n\x1a\n"
_XMP, _MORE_XMP = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_PHOTOSHOP = b"Photoshop 3.0\0"
_GIF_XMP, _GIF_C2PA = b"XMP DataXMP", b"C2PA_GIF"
_GIF_XMP_END = bytes((1, *range(255, -1, -1), 0))


def parts_of(data: bytes) -> tuple[Part, ...]:
    """Every part of the file's bytes that may state something, joined where it was cut."""
    if data.startswith(b"\xff\xd8"):
        found = _of_jpeg(data)
    elif data.startswith(_PNG):
        found = _of_png(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        found = _of_webp(data)
    elif data[:4] == b"GIF8":
        found = _of_gif(data)
    else:
        return ()
    return tuple(_joined(list(found)))


def _joined(parts: list[Part]) -> Iterator[Part]:
    """JPEG cuts long parts: each carries the name of the whole, in the order of the file."""
    wholes: dict[tuple[Kind, bytes], bytearray] = {}
    for part in parts:
        if part.kind in ("xmp part", "jumbf part"):
            whole = wholes.setdefault((part.kind, part.name), bytearray())
            whole += part.data
        else:
            yield part
    for (kind, _), whole in wholes.items():
        yield Part("xmp" if kind == "xmp part" else "jumbf", bytes(whole))


def _of_jpeg(data: bytes) -> Iterator[Part]:
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # a marker may be filled up
            place += 1
            continue
        if marker == 0xDA:  # the pixels begin
            return
        size = int.from_bytes(data[place + 2 : place + 4])
        yield from _of_segment(marker, data[place + 4 : place + 2 + size])
        place += 2 + max(size, 2)


def _of_segment(marker: int, body: bytes) -> Iterator[Part]:
    if marker == 0xE1 and body.startswith(_XMP):
        yield Part("xmp", body[len(_XMP) :])
    elif marker == 0xE1 and body.startswith(_MORE_XMP):
        # Behind the name 32 letters of an id, then the length of the whole and the place in it.
        rest = body[len(_MORE_XMP) :]
        yield Part("xmp part", rest[40:], rest[:32])
    elif marker == 0xED and body.startswith(_PHOTOSHOP):
        yield Part("iptc", body[len(_PHOTOSHOP) :])
    elif marker == 0xEB and body.startswith(b"JP"):
        # Two bytes number the box and four the part; every part repeats length and type of the box.
        number, is_first = body[2:4], int.from_bytes(body[4:8]) <= 1
        yield Part("jumbf part", body[8:] if is_first else body[16:], number)
    elif marker == 0xFE:
        yield Part("text", body, b"Comment")


def _of_png(data: bytes) -> Iterator[Part]:
    place, room = len(_PNG), MAX_TEXT_BYTES
    while place + 12 <= len(data):
        size, kind = int.from_bytes(data[place : place + 4]), data[place + 4 : place + 8]
        body = data[place + 8 : place + 8 + size]
        if kind == b"caBX":
            yield Part("jumbf", body)
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            name, text = _text_of_png(kind, body, room)
            room = max(0, room - len(text))
            yield from _of_png_text(name, text)
        elif kind == b"IEND":
            return
        place += 12 + size


def _text_of_png(kind: bytes, body: bytes, room: int) -> tuple[bytes, bytes]:
    """Keyword and text; of what is compressed no more than there is `room` for."""
    name, _, rest = body.partition(b"\0")
    if kind == b"zTXt":
        return name, _inflated(rest[1:], room)
    if kind == b"iTXt":
        text = rest[2:].split(b"\0", 2)[-1]  # behind language and translated keyword
        return name, _inflated(text, room) if rest[:1] == b"\1" else text
    return name, rest


def _of_png_text(name: bytes, text: bytes) -> Iterator[Part]:
    if name == b"XML:com.adobe.xmp":
        yield Part("xmp", text)
    elif name.startswith(b"Raw profile type "):
        profile = _of_raw_profile(text)
        kinds: dict[bytes, Kind] = {b"xmp": "xmp", b"iptc": "iptc", b"8bim": "iptc"}
        wanted = kinds.get(name.rpartition(b" ")[2].lower())
        if wanted is not None:
            yield Part(wanted, profile)
    else:
        yield Part("text", text, name)


def _of_raw_profile(text: bytes) -> bytes:
    """ImageMagick's: a name, a length, and hexadecimal digits over many lines."""
    digits = b"".join(text.split()[2:])
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return b""


def _inflated(data: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, most) if most else b""
    except zlib.error:
        return b""


def _of_webp(data: bytes) -> Iterator[Part]:
    place = 12
    while place + 8 <= len(data):
        kind, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        body = data[place + 8 : place + 8 + size]
        if kind == b"XMP ":
            yield Part("xmp", body)
        elif kind == b"C2PA":
            yield Part("jumbf", body)
        place += 8 + size + size % 2


def _of_gif(data: bytes) -> Iterator[Part]:
    place = 13 + _colours(data[10:11])
    while place < len(data):
        if data[place] == 0x2C:  # a frame: its header, its colours, the size of its codes, blocks
            place += 10 + _colours(data[place + 9 : place + 10]) + 1
            _, place = _blocks(data, place)
        elif data[place : place + 2] == b"\x21\xff" and data[place + 3 : place + 14] == _GIF_XMP:
            # The packet lies there as it is, with a trailer that ends it for readers of blocks.
            end = data.find(_GIF_XMP_END, place + 14)
            if end < 0:
                return
            yield Part("xmp", data[place + 14 : end])
            place = end + len(_GIF_XMP_END)
        elif data[place] == 0x21:
            label, start = data[place + 1 : place + 2], place + 2
            named = data[start + 1 : start + 9]
            body, place = _blocks(data, start)
            if label == b"\xff" and named == _GIF_C2PA:
                yield Part("jumbf", body[11:])
            elif label == b"\xfe":
                yield Part("text", body, b"Comment")
        else:
            return


def _colours(flags: bytes) -> int:
    return 3 * 2 ** ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _blocks(data: bytes, place: int) -> tuple[bytes, int]:
    """What the blocks from `place` on hold, and where they end."""
    body = bytearray()
    while place < len(data) and (size := data[place]):
        body += data[place + 1 : place + 1 + size]
        place += 1 + size
    return bytes(body), place + 1
