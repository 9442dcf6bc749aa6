"""Image files that state something of rights, in every place that a format has for it."""

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, PngImagePlugin

PLUS = "http://ns.useplus.org/ldf/vocab/"
SPACES = (
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
    ' xmlns:p="http://ns.useplus.org/ldf/xmp/1.0/"'
    ' xmlns:tdm="http://www.w3.org/ns/tdmrep/" xmlns:dc="http://purl.org/dc/elements/1.1/"'
    ' xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/"'
)
Format = Literal["PNG", "JPEG", "WEBP", "GIF"]
FORMATS: tuple[Format, ...] = ("PNG", "JPEG", "WEBP", "GIF")


def xmp(inside: str = "", attributes: str = "") -> bytes:
    """A packet whose one description has these attributes and elements."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {SPACES}>'
        f'<rdf:Description rdf:about="" {attributes}>{inside}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta>\n   <?xpacket end="w"?>'
    ).encode()


def data_mining(value: str) -> bytes:
    """A packet with PLUS's Data Mining."""
    return xmp(attributes=f'p:DataMining="{PLUS}{value}"')


def picture(kind: Format, packet: bytes | None = None, seed: int = 1) -> bytes:
    """A small picture, with an XMP packet where the format has its place."""
    noise = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    out = io.BytesIO()
    if packet is None:
        image.save(out, kind)
    elif kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", packet.decode("utf-8", "surrogateescape"))
        image.save(out, kind, pnginfo=info)
    elif kind == "GIF":
        image.save(out, kind)
        return with_gif_block(out.getvalue(), b"\xff\x0bXMP DataXMP" + packet + _gif_trailer())
    else:
        image.save(out, kind, xmp=packet)
    return out.getvalue()


def _gif_trailer() -> bytes:
    return bytes([1, *range(255, -1, -1), 0])


def with_gif_block(data: bytes, extension: bytes) -> bytes:
    """The file with an extension in front of its first frame."""
    place = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    return data[:place] + b"\x21" + extension + data[place:]


def with_chunk(data: bytes, kind: bytes, body: bytes) -> bytes:
    """A PNG with one more chunk behind its header."""
    place = 8 + 25
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data[:place] + chunk + data[place:]


def with_segment(data: bytes, marker: int, *bodies: bytes) -> bytes:
    """A JPEG with more segments in front of the others."""
    made = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for body in bodies)
    return data[:2] + made + data[2:]


def with_riff_chunk(data: bytes, kind: bytes, body: bytes) -> bytes:
    """A WebP with one more chunk at its end."""
    body += b"\0" * (len(body) % 2)
    whole = data[8:] + kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(whole)) + whole


def cbor(value: Any) -> bytes:
    """Maps of texts, as writers of Content Credentials encode them."""
    if isinstance(value, dict):
        pairs = b"".join(cbor(key) + cbor(each) for key, each in value.items())
        return bytes([0xA0 + len(value)]) + pairs
    text = str(value).encode()
    return (bytes([0x60 + len(text)]) if len(text) < 24 else bytes([0x78, len(text)])) + text


def box(kind: bytes, body: bytes) -> bytes:
    """An ISO box."""
    return struct.pack(">I", 8 + len(body)) + kind + body


def superbox(label: str, *inside: bytes) -> bytes:
    """A JUMBF box with a label."""
    described = box(b"jumd", bytes(16) + b"\x03" + label.encode() + b"\0")
    return box(b"jumb", described + b"".join(inside))


def credentials(label: str, content: bytes, kind: bytes = b"cbor") -> bytes:
    """A store of one manifest with one assertion beside another."""
    other = superbox("c2pa.actions", box(b"cbor", cbor({"actions": "none"})))
    assertions = superbox("c2pa.assertions", other, superbox(label, box(kind, content)))
    return superbox("c2pa", superbox("urn:uuid:manifest", assertions))


def entries(**uses: str) -> dict[str, Any]:
    """The content of an assertion."""
    return {"entries": {f"cawg.{name}": {"use": use} for name, use in uses.items()}}


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def in_file(kind: Format, jumbf: bytes) -> bytes:
    """A picture with a JUMBF box where the format has its place."""
    data = picture(kind)
    if kind == "PNG":
        return with_chunk(data, b"caBX", jumbf)
    if kind == "WEBP":
        return with_riff_chunk(data, b"C2PA", jumbf)
    if kind == "GIF":
        blocks = b"".join(
            bytes([len(jumbf[n : n + 255])]) + jumbf[n : n + 255] for n in range(0, len(jumbf), 255)
        )
        return with_gif_block(data, b"\xff\x0bC2PA_GIF\1\0\0" + blocks + b"\0")
    cut = 100
    parts = [jumbf[:cut], *(jumbf[:8] + jumbf[n : n + cut] for n in range(cut, len(jumbf), cut))]
    numbered = (b"JP\0\1" + struct.pack(">I", n) + part for n, part in enumerate(parts, start=1))
    return with_segment(data, 0xEB, *numbered)


def written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
