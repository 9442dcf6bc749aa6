"""Claims of packages, read without opening anything else in them, and never taken as evidence."""

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import DataStewardError
from data_contracts.licences import package_metadata
from data_contracts.licences.package_claims import (
    PackageClaim,
    claims_agree,
    licences_agree,
    read_package_claim,
)
from tests.real_licence_packages import (
    EMOJI_PICTURES,
    SCRAPED_POSTS,
    tarball_or_skip,
    wheel_or_skip,
)

OSI = "Classifier: License :: OSI Approved :: "


def wheel(folder: Path, *lines: str, name: str = "a-1.dist-info/METADATA") -> Path:
    path = folder / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/code.py", "raise SystemExit")
        text = "\n".join(["Metadata-Version: 2.4", "Name: a", "Version: 1", *lines, "", "Text"])
        archive.writestr(name, text)
    return path


def tarball(folder: Path, document: Any, name: str = "package/package.json") -> Path:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    path = folder / "a-1.tgz"
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return path


def card(folder: Path, text: str) -> Path:
    path = folder / "set-of-cards" / "README.md"
    path.parent.mkdir()
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("lines", "licence", "source"),
    [
        (["License-Expression: mit OR Apache-2.0"], "Apache-2.0 OR MIT", "License-Expression"),
        (["License-Expression: Own", "License: MIT"], "NOASSERTION", "License-Expression"),
        (["License: MIT"], "MIT", "License"),
        (["License: see our site", f"{OSI}MIT License"], "MIT", "Classifier"),
        (["License: MIT", f"{OSI}Apache Software License"], "NOASSERTION", "License"),
        ([f"{OSI}MIT License", f"{OSI}ISC License (ISCL)"], "NOASSERTION", "License"),
        ([f"{OSI}BSD License"], "NOASSERTION", "Classifier"),
        ([], "NOASSERTION", "License"),
    ],
)
def test_a_wheel(tmp_path: Path, lines: list[str], licence: str, source: str) -> None:
    claim = read_package_claim(wheel(tmp_path, *lines))
    assert claim == PackageClaim("a", "1", licence, f"METADATA {source}")


@pytest.mark.parametrize(
    ("stated", "licence"),
    [
        ("MIT", "MIT"),
        ("(MIT OR CC0-1.0)", "CC0-1.0 OR MIT"),
        ({"type": "ISC", "url": "https://example.org"}, "ISC"),
        ("SEE LICENSE IN LICENSE.txt", "NOASSERTION"),
        ("UNLICENSED", "NOASSERTION"),
        (None, "NOASSERTION"),
        (["MIT"], "NOASSERTION"),
    ],
)
def test_an_npm_tarball(tmp_path: Path, stated: Any, licence: str) -> None:
    document = {"name": "@scope/a", "version": "1.0.0", "license": stated}
    claim = read_package_claim(tarball(tmp_path, document))
    assert claim == PackageClaim("@scope/a", "1.0.0", licence, "package.json license")


@pytest.mark.parametrize(
    ("stated", "licence"),
    [
        ("license: cc-by-4.0", "CC-BY-4.0"),
        ("license: gemma", "LicenseRef-Gemma-Terms"),
        ("license: [odc-by, mit]", "MIT AND ODC-By-1.0"),
        ("license: [mit, other]", "NOASSERTION"),
        ("license: other\nlicense_name: ours", "NOASSERTION"),
        ("language: en", "NOASSERTION"),
    ],
)
def test_a_card(tmp_path: Path, stated: str, licence: str) -> None:
    claim = read_package_claim(card(tmp_path, f"---\n{stated}\n---\n# Title\nlicense: mit\n"))
    assert claim == PackageClaim("set-of-cards", None, licence, "card license")


def test_an_untrusted_archive_is_refused_without_a_quotation(tmp_path: Path) -> None:
    broken = tmp_path / "broken.whl"
    broken.write_bytes(b"PK secret")
    empty = tmp_path / "empty.tgz"
    empty.write_bytes(b"")
    large = tarball(tmp_path, b" " * (package_metadata.MAX_METADATA_BYTES + 1))
    for path in (broken, empty, large, tmp_path / "absent.whl", tmp_path / "a.zip"):
        with pytest.raises(DataStewardError, match=f"package {path.name}: expected") as caught:
            read_package_claim(path)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["a/METADATA", "x/a-1.dist-info/METADATA", "a-1.dist-info/OTHER"])
def test_metadata_at_another_place_is_not_metadata(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataStewardError, match="0 of them"):
        read_package_claim(wheel(tmp_path, "License: MIT", name=name))


@pytest.mark.parametrize(
    "document", [b"{", b"[1]", b"[" * 100_000, {"name": "a b\n", "version": "1"}]
)
def test_another_package_json_is_refused(tmp_path: Path, document: Any) -> None:
    with pytest.raises(DataStewardError, match="found something else"):
        read_package_claim(tarball(tmp_path, document))


@pytest.mark.parametrize("name", ["a/b/package.json", "package.json", "/package/package.json"])
def test_a_package_json_elsewhere_is_not_the_packages(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataStewardError, match=r"a package\.json in its top folder"):
        read_package_claim(tarball(tmp_path, {"name": "a", "version": "1"}, name))


def test_a_bomb_is_not_unpacked_to_its_end(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("package/zeros")
    entry.size = 8 * package_metadata.MAX_UNPACKED_BYTES
    path = tmp_path / "bomb.tgz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(entry.tobuf())
        zeros = b"\0" * 16_000_000
        for _ in range(package_metadata.MAX_UNPACKED_BYTES // len(zeros) + 2):
            file.write(zeros)
    with pytest.raises(DataStewardError, match="expected an npm tarball; found ValueError"):
        read_package_claim(path)


@pytest.mark.parametrize(
    "text",
    ["# no front matter", "---\nlicense: mit\n", "---\na: &b 1\nc: *b\n---\n", "---\n[\n---\n"],
)
def test_a_card_without_plain_front_matter_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataStewardError, match=r"package README\.md: expected"):
        read_package_claim(card(tmp_path, text))


@pytest.mark.parametrize(
    ("record", "claimed", "agree"),
    [
        ("mit", "MIT", True),
        ("ISC OR MIT", "MIT OR ISC", True),
        ("CC-BY-4.0", "MIT", False),
        ("NOASSERTION", "MIT", False),
        ("", "MIT", False),
        (None, "MIT", False),
        ("MIT", "NOASSERTION", False),
        ("NOASSERTION", "NOASSERTION", False),
        ("free text", "free text", False),
    ],
)
def test_agreement_is_between_stated_licences(
    record: str | None, claimed: str, agree: bool
) -> None:
    claim = PackageClaim("a", "1", claimed, "made for a test")
    assert claims_agree(record, claim) == agree
    assert licences_agree(claimed, record) == agree


def test_posts_of_others_in_a_wheel_have_no_claim_in_its_metadata() -> None:
    """Its README says MIT, which no tool reads as a licence, and not its author's to say."""
    claim = read_package_claim(wheel_or_skip(SCRAPED_POSTS))
    assert claim == PackageClaim("ilimikudi", "0.3.1", "NOASSERTION", "METADATA License")
    assert not claims_agree("MIT", claim)


def test_pictures_in_an_npm_package_have_another_licence_than_the_package_claims() -> None:
    claim = read_package_claim(tarball_or_skip(EMOJI_PICTURES))
    assert (claim.package, claim.version) == ("emoji-datasource-twitter", "16.0.0")
    assert claim.licence == "MIT"
    assert not claims_agree("CC-BY-4.0", claim)
