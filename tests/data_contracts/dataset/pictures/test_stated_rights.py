"""What image files state against training is found in every format, and nothing else is."""

import io
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.dataset.pictures.stated_rights import stated_opt_outs
from data_contracts.dataset.pictures.words import directive_in, keyword_in
from tests.data_contracts.dataset.pictures.rights_samples import (
    FORMATS,
    PLUS,
    Format,
    as_json,
    cbor,
    credentials,
    data_mining,
    entries,
    in_file,
    picture,
    superbox,
    with_chunk,
    with_gif_block,
    with_riff_chunk,
    with_segment,
    xmp,
)

PROHIBITED = "XMP DataMining DMI-PROHIBITED"
CAWG = "C2PA cawg.training-mining"


@pytest.mark.parametrize("kind", FORMATS)
def test_data_mining_is_read_from_every_format(kind: Format) -> None:
    assert stated_opt_outs(picture(kind, data_mining("DMI-PROHIBITED"))) == (PROHIBITED,)
    assert stated_opt_outs(picture(kind, data_mining("DMI-ALLOWED"))) == ()
    assert stated_opt_outs(picture(kind)) == ()


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("DMI-UNSPECIFIED", None),
        ("DMI-PROHIBITED-AIMLTRAINING", "DMI-PROHIBITED-AIMLTRAINING"),
        ("DMI-PROHIBITED-GENAIMLTRAINING", "DMI-PROHIBITED-GENAIMLTRAINING"),
        ("DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING", "DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING"),
        ("DMI-PROHIBITED-SEECONSTRAINT", "DMI-PROHIBITED-SEECONSTRAINT"),
        ("DMI-PROHIBITED-SEEEMBEDDEDRIGHTSEXPR", "DMI-PROHIBITED-SEEEMBEDDEDRIGHTSEXPR"),
        ("DMI-PROHIBITED-SEELINKEDRIGHTSEXPR", "DMI-PROHIBITED-SEELINKEDRIGHTSEXPR"),
        ("DMI-OF-A-LATER-VERSION", "with a value that is not known"),
    ],
)
def test_every_value_of_the_vocabulary(value: str, found: str | None) -> None:
    expected = () if found is None else (f"XMP DataMining {found}",)
    assert stated_opt_outs(picture("PNG", data_mining(value))) == expected


@pytest.mark.parametrize(
    ("packet", "found"),
    [
        (xmp(f"<p:DataMining>{PLUS}DMI-PROHIBITED</p:DataMining>"), PROHIBITED),
        (xmp(f'<p:DataMining rdf:resource="{PLUS}DMI-PROHIBITED"/>'), PROHIBITED),
        (xmp("<p:DataMining>DMI-PROHIBITED</p:DataMining>"), PROHIBITED),
        (
            xmp(f"<p:DataMining><rdf:value> {PLUS}DMI-PROHIBITED\n</rdf:value></p:DataMining>"),
            PROHIBITED,
        ),
        (
            xmp("<p:DataMining>Prohibited</p:DataMining>"),
            "XMP DataMining with a value that is not known",
        ),
        (xmp("<p:DataMining/>"), None),
        (xmp("<p:OtherConstraints>DMI-PROHIBITED</p:OtherConstraints>"), None),
        (xmp(attributes='tdm:reservation="1"'), "XMP tdm:reservation 1"),
        (xmp("<tdm:reservation>0</tdm:reservation>"), None),
        (
            xmp(
                "<dc:subject><rdf:Bag><rdf:li>cat</rdf:li><rdf:li>NoAI</rdf:li></rdf:Bag></dc:subject>"
            ),
            "XMP keyword noai",
        ),
        (
            xmp(
                "<dc:subject><rdf:Bag><rdf:li>piano</rdf:li><rdf:li>air</rdf:li></rdf:Bag></dc:subject>"
            ),
            None,
        ),
        (
            xmp("<xmpRights:UsageTerms>Reserved. No AI training.</xmpRights:UsageTerms>"),
            "XMP xmpRights:UsageTerms noai",
        ),
    ],
    ids=range(12),
)
def test_every_spelling_of_xmp(packet: bytes, found: str | None) -> None:
    assert stated_opt_outs(picture("JPEG", packet)) == (() if found is None else (found,))


BROKEN = "XMP that cannot be read and speaks of data mining"
LAUGHS = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("packet", "found"),
    [
        (data_mining("DMI-PROHIBITED")[:-60], BROKEN),
        (LAUGHS.encode() + b"<x>&b; DMI-PROHIBITED</x>", BROKEN),
        (LAUGHS.encode() + b"<x>&b;</x>", None),
        (b"<x>" * 5000 + b"DataMining", BROKEN),
        (b"not XML at all", None),
        (b" " * 9_000_000 + data_mining("DMI-PROHIBITED"), BROKEN),
        (data_mining("DMI-PROHIBITED").decode().encode("utf-16"), PROHIBITED),
    ],
    ids=range(7),
)
def test_xml_that_is_refused_is_noise_and_no_permission(packet: bytes, found: str | None) -> None:
    data = with_riff_chunk(picture("WEBP"), b"XMP ", packet)
    began = time.process_time()
    assert stated_opt_outs(data) == (() if found is None else (found,))
    assert time.process_time() - began < 2


def test_a_long_packet_that_a_jpeg_has_cut_is_whole() -> None:
    rest = data_mining("DMI-PROHIBITED")
    head = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32
    whole = len(rest).to_bytes(4)
    parts = [
        head + whole + place.to_bytes(4) + rest[place : place + 90]
        for place in range(0, len(rest), 90)
    ]
    data = with_segment(picture("JPEG", xmp()), 0xE1, *parts)
    assert stated_opt_outs(data) == (PROHIBITED,)


def test_keywords_of_iptc() -> None:
    def keyword(text: bytes) -> bytes:
        return b"\x1c\x02\x19" + len(text).to_bytes(2) + text

    resource = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\x20" + keyword(b"dog")
    assert stated_opt_outs(with_segment(picture("JPEG"), 0xED, resource)) == ()
    data = with_segment(picture("JPEG"), 0xED, resource + keyword(b"no-image-ai"))
    assert stated_opt_outs(data) == ("IPTC keyword noimageai",)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "label", ["cawg.training-mining", "c2pa.training-mining", "cawg.training-mining__1"]
)
def test_content_credentials_in_every_format(kind: Format, label: str) -> None:
    content = cbor(entries(ai_inference="notAllowed", ai_training="notAllowed"))
    expected = f"C2PA {label.removesuffix('__1')} ai_training notAllowed"
    assert stated_opt_outs(in_file(kind, credentials(label, content))) == (expected,)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (cbor(entries(ai_training="allowed", data_mining="allowed")), ()),
        (cbor(entries(ai_inference="notAllowed")), ()),
        (cbor(entries(data_mining="constrained")), ("data_mining constrained",)),
        (cbor({"cawg.ai_training": {"use": "notAllowed"}}), ("ai_training notAllowed",)),
        (
            cbor(entries(ai_generative_training="maybe")),
            ("ai_generative_training that cannot be read",),
        ),
        (
            b"\xa1\x67entries\xbf\x70cawg.ai_training\xd8\x20\xa1\x63use\x7f\x63not\x67Allowed\xff\xff",
            ("ai_training notAllowed",),
        ),
        (b"\xff", ("that cannot be read",)),
        (b"\x9f" * 100, ("that cannot be read",)),
        (b"\xbb" + b"\xff" * 8, ("that cannot be read",)),
        (b"", ("that cannot be read",)),
    ],
    ids=range(10),
)
def test_every_use_in_content_credentials(content: bytes, found: tuple[str, ...]) -> None:
    data = in_file("PNG", credentials("cawg.training-mining", content))
    assert stated_opt_outs(data) == tuple(f"{CAWG} {phrase}" for phrase in found)


def test_content_credentials_in_json_and_in_no_end_of_boxes() -> None:
    content = as_json(entries(ai_training="notAllowed"))
    box = credentials("cawg.training-mining", content, b"json")
    assert stated_opt_outs(in_file("PNG", box)) == (f"{CAWG} ai_training notAllowed",)
    for _ in range(40):
        box = superbox("more", box)
    assert stated_opt_outs(in_file("PNG", box)) == ("C2PA training-mining that cannot be read",)
    many = superbox("c2pa", bytes(8) * 20_000) + box
    assert stated_opt_outs(in_file("PNG", many)) == ("C2PA training-mining that cannot be read",)


def test_texts_of_png_and_comments() -> None:
    plain = picture("PNG")
    packed = zlib.compress(data_mining("DMI-PROHIBITED"))
    raw = b"\nxmp\n 8\n" + data_mining("DMI-PROHIBITED").hex().encode()
    for kind, body, found in (
        (b"tEXt", b"noai\0true", "text noai"),
        (b"tEXt", b"noai\0false", None),
        (b"tEXt", b"Robots\0index, NOIMAGEAI", "text noimageai"),
        (b"tEXt", b"Title\0noai", None),
        (b"tEXt", b"Keywords\0sea, noai", "keyword noai"),
        (b"tEXt", b"DMI-PROHIBITED\0true", "text DMI-PROHIBITED"),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0\0" + packed, PROHIBITED),
        (b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(raw), PROHIBITED),
        (b"zTXt", b"Raw profile type xmp\0\0broken", None),
    ):
        expected = () if found is None else (found,)
        assert stated_opt_outs(with_chunk(plain, kind, body)) == expected, body
    assert stated_opt_outs(with_segment(picture("JPEG"), 0xFE, b"noai, noindex")) == ("text noai",)
    comment = with_gif_block(picture("GIF"), b"\xfe\x04noai\0")
    assert stated_opt_outs(comment) == ("text noai",)


def test_texts_that_grow_without_end_are_not_unpacked() -> None:
    bomb = b"Comment\0\0" + zlib.compress(bytes(30_000_000), 9)
    data = picture("PNG")
    for _ in range(50):
        data = with_chunk(data, b"zTXt", bomb)
    began = time.process_time()
    assert stated_opt_outs(data) == ()
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("robots", "found"),
    [
        ("noai", "noai"),
        ("noindex, noimageai", "noimageai"),
        ("noimageai, noai", "noai"),
        ("somebot: noindex, otherbot: NoAI", "noai"),
        ("all", None),
        ("max-snippet:-1", None),
        ("noaikido", None),
        ("", None),
    ],
)
def test_directives(robots: str, found: str | None) -> None:
    assert directive_in(robots) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("#NoAI", "noai"),
        ("no_image_ai", "noimageai"),
        ("No AI-training", "noai"),
        ("made with no AI", None),
        ("casino ai", None),
        ("noair", None),
    ],
)
def test_keywords(text: str, found: str | None) -> None:
    assert keyword_in(text) == found


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from(FORMATS), st.booleans())
def test_damaged_files_are_read_without_an_exception(
    seed: int, damage: int, kind: Format, cut: bool
) -> None:
    box = credentials("cawg.training-mining", cbor(entries(ai_training="notAllowed")))
    whole = in_file(kind, box) if seed % 2 else picture(kind, data_mining("DMI-PROHIBITED"))
    data = np.frombuffer(whole, np.uint8).copy()
    random = np.random.default_rng(seed)
    data[random.integers(0, len(data), damage)] = random.integers(0, 256, damage)
    read = data.tobytes()[: random.integers(0, len(data)) if cut else len(data)]
    assert isinstance(stated_opt_outs(read), tuple)
    assert isinstance(stated_opt_outs(io.BytesIO(read[8:]).getvalue()), tuple)


def test_content_credentials_that_others_have_written() -> None:
    """Made and signed by c2pa-python 0.38.1: three uses, of which one is allowed."""
    data = (Path(__file__).parent / "content-credentials.png").read_bytes()
    stated = ("ai_training notAllowed", "data_mining constrained")
    assert stated_opt_outs(data) == tuple(f"{CAWG} {phrase}" for phrase in stated)
