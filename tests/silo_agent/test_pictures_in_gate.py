"""Pictures with captions on their way through the gate into the files that training reads."""

import json
import os
import re
import sqlite3
import tarfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_contracts.dataset.contract import parse_contract
from data_contracts.dataset.forms.image_text import CaptionedPicture
from data_contracts.dataset.forms.record_index import RecordIndex
from data_contracts.dataset.pictures.training_picture import training_picture
from data_contracts.errors import DataStewardError
from silo_agent.first_day.contract_template import contract_text
from silo_agent.gate.steward_page import render_page
from silo_agent.gate.steward_view import steward_view
from tests.data_contracts.dataset.contract_samples import write_lines
from tests.data_contracts.dataset.pictures.rights_samples import (
    Format,
    cbor,
    credentials,
    data_mining,
    entries,
    in_file,
    picture,
    written,
)
from tests.real_licence_packages import EMOJI_PICTURES, tarball_or_skip
from tests.silo_agent.gate_samples import NOW, SampleSilo, failing
from tests.silo_agent.test_seeded_violations import IMAGE_TEXT

NUMBER = 40
Row = dict[str, Any]
PAIRS = IMAGE_TEXT.replace(
    "      - {name: nsfw, logicalType: string, physicalName: NSFW}\n"
    "      - {name: punsafe, logicalType: number}\n"
    "      - {name: pwatermark, logicalType: number}\n",
    "",
)


def rows(count: int = NUMBER) -> list[Row]:
    return [
        {"file_name": f"{n:02}.png", "TEXT": f"Picture {n} of the set", "LICENSE": "MIT"}
        for n in range(count)
    ]


def silo_with(home: Path, listed: list[Row], contract: str = PAIRS) -> SampleSilo:
    """A silo with a picture for every row, all of them different."""
    silo = SampleSilo(home, contract)
    folder = home / "data" / "sets"
    for n, row in enumerate(listed):
        written(folder / row["file_name"], picture("PNG", seed=n))
    write_lines(folder / "metadata.jsonl", listed)
    return silo


def mapped(*fields: str) -> str:
    """The contract with more columns."""
    last = "      - {name: licence, logicalType: string, physicalName: LICENSE}\n"
    assert last in PAIRS
    return PAIRS.replace(last, last + "".join(f"      - {field}\n" for field in fields))


def test_splits_name_the_bytes_that_were_checked(tmp_path: Path) -> None:
    silo = silo_with(tmp_path, rows())
    outcome = silo.check()
    assert outcome.passed, failing(outcome)
    files = silo.gate.splits(outcome.findings_digest)
    seen: dict[str, CaptionedPicture] = {}
    for path in (files.train, files.heldout):
        assert path.stat().st_mode & 0o777 == 0o600
        first = json.loads(path.read_text("utf-8").split("\n")[0])
        assert list(first) == ["image", "sha256", "answer"]
        index = RecordIndex(path)
        seen |= {(record := index.record(n)).caption: record for n in range(len(index))}
    assert len(seen) == NUMBER
    for n, row in enumerate(rows()):
        record = seen[row["TEXT"]]
        assert record.path == (tmp_path / "data" / "sets" / row["file_name"]).resolve()
        assert record.sha256 == sha256(picture("PNG", seed=n)).hexdigest()
        assert training_picture(record.path, record.sha256, 16).shape == (16, 16, 3)
    before = files.train.stat().st_mtime_ns
    silo.gate.splits(outcome.findings_digest)
    assert files.train.stat().st_mtime_ns == before, "the same outcome writes nothing again"


def test_files_name_the_pictures_where_they_are_now(tmp_path: Path) -> None:
    silo = silo_with(tmp_path, rows())
    digest = silo.check().findings_digest
    old = silo.gate.splits(digest).train.read_text()
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    moved = silo.config.data.model_copy(update={"root": Path("elsewhere")})
    silo.config = silo.config.model_copy(update={"data": moved})
    assert silo.check().findings_digest == digest
    new = silo.gate.splits(digest).train.read_text()
    assert new == old.replace(f"{tmp_path}/data/", f"{tmp_path}/elsewhere/")


def test_pictures_without_a_subject_of_their_own_count_as_no_subjects(tmp_path: Path) -> None:
    """Each stands for one in the check, which says nothing about people."""
    outcome = silo_with(tmp_path / "without", rows()).check()
    assert (outcome.units("record"), outcome.units("subject")) == (outcome.train_records, None)
    listed = [row | {"subject": f"person-{n // 2}"} for n, row in enumerate(rows())]
    column = mapped("{name: subject, logicalType: string}")
    named = silo_with(tmp_path / "named", listed, column).check()
    assert named.passed, failing(named)
    assert named.units("subject") == named.train_records // 2


def test_a_picture_that_was_changed_is_not_written_down(tmp_path: Path) -> None:
    silo = silo_with(tmp_path, rows())
    outcome = silo.check()
    written(tmp_path / "data" / "sets" / "07.png", picture("PNG", seed=99))
    with pytest.raises(DataStewardError, match="other findings than those of the verdict"):
        silo.gate.splits(outcome.findings_digest)


def test_a_picture_that_the_check_saw_otherwise_is_not_written_down(tmp_path: Path) -> None:
    """As when a file is exchanged for the moment in which the check looks at it."""
    silo = silo_with(tmp_path, rows())
    outcome = silo.check()
    table = silo.gate.findings(outcome)
    assert table is not None
    with sqlite3.connect(table) as connection:
        connection.execute("UPDATE findings SET image_digest = ? WHERE row = 8", ("0" * 64,))
    with pytest.raises(DataStewardError, match="other bytes in the picture of row 8"):
        silo.gate.splits(outcome.findings_digest)


def test_the_same_picture_is_not_on_both_sides(tmp_path: Path) -> None:
    listed = rows()
    for n, row in enumerate(listed):
        row["split"] = "heldout" if n >= 30 else "train"
    silo = silo_with(tmp_path, listed, mapped("{name: split, logicalType: string}"))
    folder = tmp_path / "data" / "sets"
    (folder / "05.png").write_bytes((folder / "33.png").read_bytes())
    outcome = silo.check()
    assert outcome.passed
    assert (outcome.train_records, outcome.heldout_records) == (29, 10)
    train = silo.gate.splits(outcome.findings_digest).train.read_text()
    assert "/05.png" not in train and "/06.png" in train
    page = render_page(steward_view(silo.gate, outcome)).decode()
    assert "the same picture" in page


def test_one_caption_of_many_pictures_is_no_repetition(tmp_path: Path) -> None:
    listed = [row | {"TEXT": "A chest radiograph without findings"} for row in rows()]
    again = listed[11] | {"file_name": "again.png"}
    other = listed[11] | {"file_name": "again.png", "TEXT": "The lungs are clear"}
    silo = silo_with(tmp_path, [*listed, again, other])
    folder = tmp_path / "data" / "sets"
    (folder / "again.png").write_bytes((folder / "11.png").read_bytes())
    outcome = silo.check()
    assert outcome.passed, failing(outcome)
    page = render_page(steward_view(silo.gate, outcome)).decode()
    assert "the same pair" in page
    files = silo.gate.splits(outcome.findings_digest)
    said = [path.read_text() for path in (files.train, files.heldout)]
    # The pair is there once; the other caption is a record of its own, on the side of its picture.
    assert sum(text.count('"A chest radiograph') for text in said) == NUMBER
    assert sum(text.count("The lungs are clear") for text in said) <= 1
    assert all(text.count("\n") > 4 for text in said)


CREDENTIALS = credentials("cawg.training-mining", cbor(entries(ai_training="notAllowed")))
STATED_IN_FILES: list[tuple[Format, bytes, str | None]] = [
    (
        "JPEG",
        picture("JPEG", data_mining("DMI-PROHIBITED-AIMLTRAINING")),
        "XMP DataMining DMI-PROHIBITED-AIMLTRAINING",
    ),
    ("WEBP", picture("WEBP", data_mining("DMI-ALLOWED")), None),
    ("PNG", in_file("PNG", CREDENTIALS), "C2PA cawg.training-mining ai_training notAllowed"),
]
STATED_IN_COLUMNS: list[tuple[Row, str | None]] = [
    ({"robots": "noindex, noimageai"}, "robots noimageai"),
    ({"robots": "noindex"}, None),
    ({"noai": True}, "noai column"),
    ({"noimageai": "yes"}, "noimageai column"),
    ({"noimageai": False}, None),
    ({"exif": '{"Image XPKeywords": "sea, noai"}'}, "exif noai"),
    ({"exif": '{"Image Make": "Sony A1"}'}, None),
]


def test_what_states_that_a_picture_is_not_for_training(tmp_path: Path) -> None:
    contract = mapped(
        "{name: robots, logicalType: string}",
        "{name: noai, logicalType: boolean}",
        "{name: noimageai, logicalType: boolean}",
        "{name: exif, logicalType: string}",
    )
    columns: Row = {"robots": "", "noai": None, "noimageai": None, "exif": None}
    listed = [row | columns for row in rows(60)]
    silo = silo_with(tmp_path, listed, contract)
    folder = tmp_path / "data" / "sets"
    expected: dict[int, str] = {}
    for n, (kind, data, stated) in enumerate(STATED_IN_FILES):
        listed[n]["file_name"] = f"stated-{n}.{kind.lower()}"
        written(folder / listed[n]["file_name"], data)
        expected |= {n + 1: stated} if stated else {}
    for n, (said, stated) in enumerate(STATED_IN_COLUMNS, start=len(STATED_IN_FILES)):
        listed[n] |= said
        expected |= {n + 1: stated} if stated else {}
    write_lines(folder / "metadata.jsonl", listed)
    outcome = silo.check()
    assert failing(outcome) == ["opt_out.none"]
    assert outcome.train_records + outcome.heldout_records == 60 - len(expected)
    notes = [note for note in outcome.operator_notes if "it states" in note]
    begins = "it states that it is not for training:"
    assert notes == [f"row {row}: {begins} {stated}" for row, stated in expected.items()]
    page = render_page(steward_view(silo.gate, outcome)).decode()
    assert all(f"not for training, by {stated}" in page for stated in expected.values())


def test_a_set_without_metadata_is_said_once(tmp_path: Path) -> None:
    silo = silo_with(tmp_path, rows())
    metadata = tmp_path / "data" / "sets" / "metadata.jsonl"
    metadata.write_text("")
    outcome = silo.check()
    assert "records.minimum" in failing(outcome) and not outcome.operator_notes
    metadata.unlink()
    outcome = silo.check()
    assert failing(outcome) == ["data.available"]
    expected = "one is expected of metadata.parquet, metadata.csv, metadata.jsonl"
    assert expected in outcome.operator_notes[0] and len(outcome.operator_notes) == 1


def test_bad_pictures_are_each_one_clear_message(tmp_path: Path) -> None:
    listed = rows()
    listed[6]["TEXT"] = " \u200b"
    silo = silo_with(tmp_path, listed)
    folder = tmp_path / "data" / "sets"
    (folder / "00.png").unlink()
    (folder / "01.png").write_bytes((folder / "01.png").read_bytes()[:200])
    Image.new("RGB", (15, 15)).save(folder / "02.png")
    (folder / "03.png").rename(folder.parent / "out.png")
    (folder / "03.png").symlink_to("../out.png")
    (folder / "04.png").rename(os.fsdecode(os.fsencode(folder) + b"/\xff.png"))
    (folder / "04.png").symlink_to(os.fsdecode(b"\xff.png"))
    (folder / "05.png").write_text("words")
    outcome = silo.check()
    assert failing(outcome) == ["records.readable", "records.not_empty", "images.allowed"]
    field = "unreadable, field image (column file_name)"
    assert sorted(outcome.operator_notes) == [
        f"row 1: {field} names no file",
        "row 2: image refused: undecodable",
        "row 3: image refused: too_small",
        f"row 4: {field} lies outside the folder",
        f"row 5: {field} names a file whose name is not UTF-8",
        "row 6: image refused: unknown_format",
        "row 7: the caption is empty",
    ]
    page = render_page(steward_view(silo.gate, outcome)).decode()
    assert "a side of the picture has fewer than 16 pixels" in page


CONTRADICTED = ["records.minimum", "cohort.minimum", "split.both_present", "licence.of_pictures"]
README = """\
# Pictures of everything

This project is MIT licensed, as LICENSE says.

- Apple images: not licensed for commercial usage.
- Penguin images are available under the
  [Creative Commons Attribution 4.0 license](https://penguins.example/LICENSE-GRAPHICS).
"""


def test_the_licence_of_the_code_is_not_that_of_the_pictures(tmp_path: Path) -> None:
    contract = PAIRS.replace("value: [MIT, ", "value: [MIT, CC-BY-4.0, ", 1)
    silo = silo_with(tmp_path, rows(), contract)
    data = tmp_path / "data"
    assert silo.check().passed
    (data / "README.md").write_text(README)
    (data / "package.json").write_text('{"name": "penguins", "license": "MIT"}')
    outcome = silo.check()
    assert failing(outcome) == CONTRADICTED
    said = "README.md, line 6, says CC-BY-4.0"
    assert f"row 1: its licence 'MIT' is not that of the pictures: {said}" in outcome.operator_notes
    page = render_page(steward_view(silo.gate, outcome)).decode()
    assert f"states MIT, and beside the pictures: {said}" in page
    write_lines(
        data / "sets" / "metadata.jsonl", [row | {"LICENSE": "CC-BY-4.0"} for row in rows()]
    )
    assert silo.check().passed


def test_the_draft_of_init_becomes_a_contract_over_pictures_as_it_says() -> None:
    draft = contract_text("fed-one", "silo-one", "Describing pictures", NOW)
    (image,) = re.findall(r"\{name: image, [^}]*\}", draft)
    needless = re.compile(r"^      - \{name: (?:id|subject|prompt|source), .*\n", re.MULTILINE)
    text, removed = needless.subn("", draft.replace("status: draft", "status: active"))
    assert removed == 4
    text = text.replace("path: records.jsonl, format: jsonl", "path: pictures, format: image-text")
    text = text.replace("    properties:\n", f"    properties:\n      - {image}\n")
    source = parse_contract(text.encode(), "contract.yaml").source
    assert source.record_form.name == "image-text" and source.path == "pictures"


@pytest.fixture(scope="module")
def emoji_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as npm unpacks it, but for all pictures after the first 120."""
    folder = tmp_path_factory.mktemp("npm")
    taken = 0
    with tarfile.open(tarball_or_skip(EMOJI_PICTURES), "r:gz") as archive:
        for member in archive:
            is_picture = member.name.startswith("package/img/twitter/64/")
            if (is_picture and taken == 120) or (member.name.count("/") > 1 and not is_picture):
                continue
            taken += is_picture
            content = archive.extractfile(member)
            if content is not None:
                written(folder / member.name, content.read())
    return folder / "package"


EMOJI = PAIRS.replace("path: sets\n", "path: package\n")


def emoji_silo(home: Path, package: Path, licence: str) -> SampleSilo:
    """A contract over the package's pictures, each under this licence and named in words."""
    contract = EMOJI.replace("value: [MIT, LicenseRef-Own]", f"value: [{licence}, LicenseRef-Own]")
    silo = SampleSilo(home, contract)
    known = {entry["image"]: entry for entry in json.loads((package / "emoji.json").read_bytes())}
    data = silo.config.data.model_copy(update={"root": package.parent})
    silo.config = silo.config.model_copy(update={"data": data})
    listed = [
        {
            "file_name": f"img/twitter/64/{path.name}",
            "TEXT": known[path.name]["name"] if path.name in known else path.stem,
            "LICENSE": licence,
        }
        for path in sorted((package / "img" / "twitter" / "64").glob("*.png"))
    ]
    write_lines(package / "metadata.jsonl", listed)
    return silo


@pytest.mark.long
def test_real_pictures_of_a_package_pass_under_their_own_licence(
    tmp_path: Path, emoji_package: Path
) -> None:
    silo = emoji_silo(tmp_path, emoji_package, "CC-BY-4.0")
    outcome = silo.check()
    assert outcome.passed, (failing(outcome), outcome.operator_notes)
    files = silo.gate.splits(outcome.findings_digest)
    indexes = [RecordIndex(path) for path in (files.train, files.heldout)]
    assert sum(map(len, indexes)) == outcome.train_records + outcome.heldout_records > 100
    record = indexes[0].record(0)
    pixels = training_picture(record.path, record.sha256, 64)
    assert pixels.std() > 1 and np.array_equal(pixels[0, 0], [255, 255, 255])


@pytest.mark.long
def test_real_pictures_of_a_package_are_not_under_the_licence_of_its_code(
    tmp_path: Path, emoji_package: Path
) -> None:
    silo = emoji_silo(tmp_path, emoji_package, "MIT")
    outcome = silo.check()
    assert failing(outcome) == CONTRADICTED
    note = "row 1: its licence 'MIT' is not that of the pictures: "
    assert f"{note}package/README.md, line 160, says CC-BY-4.0" in outcome.operator_notes
    with pytest.raises(DataStewardError):
        silo.gate.splits("0" * 64)
