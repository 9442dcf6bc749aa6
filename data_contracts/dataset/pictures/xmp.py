"""What an XMP packet states of training: untrusted XML, without entities and of a bounded size.

Read are the Data Mining property of IPTC and PLUS (IPTC Photo Metadata Standard 2023.1; PLUS LDF,
http://ns.useplus.org/ldf/vocab/), the reservation of TDMRep (W3C community group report, 2024),
keywords and usage terms. A packet that cannot be read is searched for their names: noise is no
permission.
"""

import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from xml.parsers import expat

from data_contracts.dataset.pictures.containers import MAX_TEXT_BYTES
from data_contracts.dataset.pictures.words import (
    UNREADABLE_VALUE,
    data_mining_value,
    keyword_in,
)

MAX_DEPTH = 50
_AROUND = b"\0 \r\n\t" + BOM_UTF8
_DATA_MINING, _TDM = "XMP DataMining", "XMP tdm:reservation"
_RIGHTS_NAMES = ("useplus.org", "iptc.org")
_TDM_NAME = "www.w3.org/ns/tdmrep"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns# "
_WORDS_IN = {
    "http://purl.org/dc/elements/1.1/ subject": "XMP keyword",
    "http://purl.org/dc/elements/1.1/ rights": "XMP dc:rights",
    "http://ns.adobe.com/pdf/1.3/ Keywords": "XMP keyword",
    "http://ns.adobe.com/lightroom/1.0/ hierarchicalSubject": "XMP keyword",
    "http://ns.adobe.com/xap/1.0/rights/ UsageTerms": "XMP xmpRights:UsageTerms",
}
_SUSPECT = re.compile(rb"DMI-PROHIBITED|DataMining|tdm:reservation|\bno(?:image)?ai\b", re.I)


class _RefusedError(Exception):
    """XML that no XMP has."""


def stated_in_xmp(packet: bytes) -> Iterator[str]:
    """What of a packet speaks against training, each as a fixed phrase."""
    try:
        if len(packet) > MAX_TEXT_BYTES:
            raise _RefusedError
        properties = _properties(packet)
    except (expat.ExpatError, _RefusedError, ValueError, LookupError):
        if _SUSPECT.search(packet.replace(b"\0", b"")):
            yield "XMP that cannot be read and speaks of data mining"
        return
    for name, value in properties:
        yield from _stated(name, value)


def _stated(name: str, value: str) -> Iterator[str]:
    space, _, local = name.rpartition(" ")
    if local == "DataMining" and any(known in space for known in _RIGHTS_NAMES):
        if (found := data_mining_value(value)) is not None:
            yield f"{_DATA_MINING} {found}"
    elif local == "reservation" and _TDM_NAME in space:
        if value.strip() != "0":
            yield f"{_TDM} {'1' if value.strip() == '1' else UNREADABLE_VALUE}"
    elif (where := _WORDS_IN.get(name)) is not None and (word := keyword_in(value)) is not None:
        yield f"{where} {word}"


def _properties(packet: bytes) -> list[tuple[str, str]]:
    """(name with its namespace, value) of every attribute, and of every element with all the text
    and resources inside it."""
    found: list[tuple[str, str]] = []
    open_elements: list[tuple[str, list[str]]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(open_elements) == MAX_DEPTH:
            raise _RefusedError
        found.extend(attributes.items())
        resource = attributes.get(f"{_RDF}resource")
        open_elements.append((name, []))
        if resource is not None:
            text(resource)

    def text(data: str) -> None:
        for name, values in open_elements:
            if _is_asked(name):
                values.append(data)

    def end(name: str) -> None:
        _, values = open_elements.pop()
        if _is_asked(name):
            found.append((name, "".join(values)))
        elif name == f"{_RDF}li":
            text("\n")

    def refuse(*_: object) -> None:
        raise _RefusedError

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    is_wide = packet[:2] in (BOM_UTF16_BE, BOM_UTF16_LE)
    parser.Parse(packet if is_wide else packet.strip(_AROUND), True)
    return found


def _is_asked(name: str) -> bool:
    return name in _WORDS_IN or name.rpartition(" ")[2] in ("DataMining", "reservation")
