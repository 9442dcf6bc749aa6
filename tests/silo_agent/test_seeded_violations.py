"""One seeded violation of each kind is refused by its rule, and by no other."""

import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from PIL import Image

from data_contracts.dataset.copyright.registry_builder import RegistryTerms, build_registry
from infra.disk.durable_files import write_durably
from infra.signing_keys import SigningKey, create_key
from tests.data_contracts.dataset.contract_samples import (
    CONTRACT,
    replaced,
    sample_record,
    sample_records,
)
from tests.silo_agent.gate_samples import NOW, SampleSilo, failing

WORK = " ".join(f"work{n}" for n in range(300))
SPAN = " ".join(WORK.split()[41:91])
SOURCE = "      - {name: source, logicalType: string}\n"
Records = list[dict[str, Any] | bytes]


def with_field(name: str, kind: str = "string") -> str:
    return replaced((SOURCE, f"{SOURCE}      - {{name: {name}, logicalType: {kind}}}\n"))


def with_term(name: str, value: str, contract: str = CONTRACT) -> str:
    return f"{contract}  - property: fl.{name}\n    value: {value}\n"


def good(**changes: Any) -> Records:
    return [sample_record(n, **changes) for n in range(40)]


VIOLATIONS: dict[str, tuple[str, Records, str]] = {
    "a licence that is not on the list": (
        CONTRACT,
        [*good(), sample_record(40, licence="GPL-3.0-only")],
        "licence.allowed",
    ),
    "a non-commercial licence for commercial use": (
        with_term("uses", "[commercial]", replaced(("[MIT, ", "[MIT, CC-BY-NC-4.0, "))),
        [*good(), sample_record(40, licence="CC-BY-NC-4.0")],
        "licence.allowed",
    ),
    "a LicenseRef whose terms nobody knows": (
        replaced(("LicenseRef-Own]", "LicenseRef-Own, LicenseRef-Else]")),
        [*good(), sample_record(40, licence="LicenseRef-Else")],
        "licence.allowed",
    ),
    "a record that contradicts the package": (
        with_term("packageLicence", "MIT", replaced(("[MIT, ", "[MIT, CC-BY-4.0, "))),
        [*good(), sample_record(40, licence="CC-BY-4.0")],
        "licence.claims_agree",
    ),
    "an e-mail address": (
        CONTRACT,
        [*good(), sample_record(40, answer="Write to jane.roe@clinic.example.org today.")],
        "personal_data.limit",
    ),
    "a social security number": (
        CONTRACT,
        [*good(), sample_record(40, answer="Her social security number is 536-22-8726.")],
        "personal_data.limit",
    ),
    "a patient named in a note": (
        with_term("personalData", "{kinds: [person_name]}"),
        [*good(), sample_record(40, answer="Patient: John Doe was seen by Dr. Alice Miller.")],
        "personal_data.limit",
    ),
    "exact repetitions": (CONTRACT, [*good(), *sample_records(9)], "duplicates.exact"),
    "an opt-out": (
        with_field("tdm_reservation"),
        [*good(tdm_reservation="0"), sample_record(40, tdm_reservation="1")],
        "opt_out.none",
    ),
    "an opt-out that cannot be read": (
        with_field("tdm_reservation"),
        [*good(tdm_reservation="0"), sample_record(40, tdm_reservation="yes")],
        "opt_out.none",
    ),
    "a conditional licence that nobody accepted": (
        replaced(("[MIT, ", "[MIT, LicenseRef-HPO, ")),
        [*good(), sample_record(40, licence="LicenseRef-HPO")],
        "licence.allowed",
    ),
    "no consent": (
        with_field("consent", "boolean"),
        [*good(consent=True), sample_record(40, consent=False)],
        "consent.given",
    ),
    "one label for nearly everything": (
        with_term("balance", "{maxMajorityPerMille: 900}", with_field("label")),
        [sample_record(n, label="a" if n < 39 else "b") for n in range(40)],
        "labels.balance",
    ),
    "too few subjects": (CONTRACT, [*good(subject="one"), sample_record(40)], "cohort.minimum"),
    "too few records": (CONTRACT, list(sample_records(19)), "records.minimum"),
    "an empty answer": (CONTRACT, [*good(), sample_record(40, answer="")], "records.not_empty"),
    "an answer that nobody sees": (
        CONTRACT,
        [*good(), sample_record(40, answer="\u200b\u2060\ufeff")],
        "records.not_empty",
    ),
    "a prompt of fillers": (
        CONTRACT,
        [*good(), sample_record(40, prompt="\u3164 \u2800")],
        "records.not_empty",
    ),
    "a row that is no record": (CONTRACT, [*good(), b"{"], "records.readable"),
    "a quality rule": (
        CONTRACT,
        [*good(), sample_record(40, answer="x" * 501)],
        "contract.answer-length",
    ),
}


@pytest.mark.parametrize(("contract", "records", "rule"), VIOLATIONS.values(), ids=list(VIOLATIONS))
def test_a_seeded_violation_is_refused_by_its_rule(
    tmp_path: Path, contract: str, records: Records, rule: str
) -> None:
    silo = SampleSilo(tmp_path, contract)
    silo.write_records(records)
    outcome = silo.check()
    assert not outcome.passed
    assert rule in failing(outcome)
    allowed = {rule, "cohort.minimum", "split.both_present"} if "cohort" in rule else {rule}
    assert set(failing(outcome)) <= allowed


def test_a_control_token_is_told_and_its_record_stays(tmp_path: Path) -> None:
    silo = SampleSilo(tmp_path, CONTRACT)
    silo.write_records([*good(), sample_record(40, answer="It ends.<|im_end|>")])
    outcome = silo.check()
    assert outcome.passed
    told = next(o for o in outcome.outcomes if o.rule == "text.control_tokens")
    assert (told.success, told.severity) == (False, "warning")
    assert outcome.train_records + outcome.heldout_records == 41
    assert "row 41: it spells a control token of a language model" in outcome.operator_notes


@pytest.fixture
def registry(tmp_path: Path) -> tuple[SampleSilo, SigningKey]:
    """A silo whose contract names a registry of WORK."""
    signer = create_key(tmp_path / "rights-holder.pem")
    policy = f"{{registries: [{{name: works, signer: {signer.public_key_hex}}}]}}"
    silo = SampleSilo(tmp_path, with_term("copyright", policy))
    terms = RegistryTerms(
        federation="fed-one",
        name="works",
        rights_holder="A house",
        issued_at=NOW,
        expires_at=NOW + timedelta(days=30),
    )
    build_registry([WORK], terms, b"r" * 32, signer, tmp_path / "registries")
    write_durably(tmp_path / "registries" / "works.key", b"r" * 32)
    return silo, signer


def test_a_passage_of_a_registered_work_is_refused(
    registry: tuple[SampleSilo, SigningKey],
) -> None:
    silo, _ = registry
    silo.write_records(good())
    assert failing(silo.check()) == []
    silo.write_records([*good(), sample_record(40, answer=f"It is said: {SPAN.upper()}.")])
    outcome = silo.check()
    assert failing(outcome) == ["copyright.overlap", "contract.answer-length"][:1]
    assert "row 41: repeats" in outcome.operator_notes[0]


def drop(path: Path) -> None:
    path.unlink()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("part", ["manifest.json", "bloom", "key"])
@pytest.mark.parametrize("damage", [drop, flip])
def test_a_registry_that_is_not_what_was_signed_is_refused(
    registry: tuple[SampleSilo, SigningKey], part: str, damage: Callable[[Path], None]
) -> None:
    silo, _ = registry
    silo.write_records(good())
    damage(silo.home / "registries" / f"works.{part}")
    assert failing(silo.check()) == ["copyright.registries"]


def test_an_expired_registry_is_refused_even_when_nothing_changed(
    registry: tuple[SampleSilo, SigningKey],
) -> None:
    silo, _ = registry
    silo.write_records(good())
    assert silo.check().passed
    silo.clock.sleep(timedelta(days=31).total_seconds())
    assert failing(silo.check()) == ["copyright.registries"]


IMAGE_TEXT = replaced(
    ("path: sets/records.jsonl\n    format: jsonl", "path: sets\n    format: image-text"),
    (
        "      - {name: id, logicalType: string}\n"
        "      - {name: subject, logicalType: string}\n"
        "      - {name: prompt, logicalType: string}\n"
        "      - {name: answer, logicalType: string}\n"
        "      - {name: licence, logicalType: string}\n"
        "      - {name: source, logicalType: string}\n",
        "      - {name: image, logicalType: string, physicalName: file_name}\n"
        "      - {name: answer, logicalType: string, physicalName: TEXT}\n"
        "      - {name: licence, logicalType: string, physicalName: LICENSE}\n"
        "      - {name: nsfw, logicalType: string, physicalName: NSFW}\n"
        "      - {name: punsafe, logicalType: number}\n"
        "      - {name: pwatermark, logicalType: number}\n",
    ),
)


def write_images(folder: Path, **last: Any) -> Path:
    """40 pictures with captions; `last` changes what is said of the last one."""
    folder.mkdir(parents=True)
    rows = []
    for n in range(40):
        picture = Image.effect_noise((64, 64), 20 + n).convert("RGB")
        picture.save(folder / f"{n:02}.png")
        row = {"file_name": f"{n:02}.png", "TEXT": f"Picture {n} of the set", "LICENSE": "MIT"}
        rows.append(row | {"NSFW": "UNLIKELY", "punsafe": 0.01, "pwatermark": 0.1})
    rows[-1] |= last
    columns = list(rows[0])
    lines = [",".join(columns), *(",".join(str(row[c]) for c in columns) for row in rows)]
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("last", "rule"),
    [
        ({}, None),
        ({"punsafe": 0.9}, "images.allowed"),
        ({"pwatermark": 0.95}, "images.allowed"),
        ({"NSFW": "NSFW"}, "images.allowed"),
        ({"LICENSE": ""}, "licence.allowed"),
        ({"LICENSE": "?"}, "licence.allowed"),
    ],
)
def test_image_text_pairs(tmp_path: Path, last: dict[str, Any], rule: str | None) -> None:
    silo = SampleSilo(tmp_path, IMAGE_TEXT)
    write_images(tmp_path / "data" / "sets", **last)
    assert failing(silo.check()) == ([rule] if rule else [])


def test_a_listed_picture_is_refused(tmp_path: Path) -> None:
    from data_contracts.dataset.image_hashes import hash_image
    from data_contracts.dataset.pdq import PdqHash

    silo = SampleSilo(tmp_path, with_term("images", "{registry: known}", IMAGE_TEXT))
    folder = write_images(tmp_path / "data" / "sets")
    hashed = hash_image(folder / "05.png")
    assert isinstance(hashed, PdqHash)
    (tmp_path / "registries").mkdir()
    (tmp_path / "registries" / "known.pdq").write_text(hashed.bits.hex() + "\n")
    outcome = silo.check()
    assert failing(outcome) == ["images.allowed"]
    assert outcome.operator_notes == ("row 6: image refused: listed",)
    (folder / "05.png").write_bytes(b"not a picture")
    assert silo.check().operator_notes == ("row 6: image refused: unknown_format",)


SQL = replaced(
    (
        "    type: local\n    path: sets/records.jsonl\n    format: jsonl",
        "    type: custom\n    format: sql",
    ),
    ("  - name: records", "  - name: notes"),
)


def fill_table(url: str, records: Records) -> None:
    engine = sa.create_engine(url)
    names = list(sample_record(0))
    table = sa.Table("notes", sa.MetaData(), *(sa.Column(name, sa.Text) for name in names))
    with engine.begin() as connection:
        table.drop(connection, checkfirst=True)
        table.create(connection)
        connection.execute(table.insert(), [row for row in records if isinstance(row, dict)])
    engine.dispose()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_table_is_checked_like_a_file(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    silo = SampleSilo(tmp_path, SQL)
    url = f"sqlite:///{tmp_path}/bank.db"
    if database == "postgresql":
        url = request.getfixturevalue("postgresql_url")
    write_durably(tmp_path / "keys" / "database-url", url.encode())
    fill_table(url, good())
    outcome = silo.check()
    assert outcome.passed
    assert silo.check() == outcome
    assert silo.gate.splits(outcome.findings_digest).train.exists()
    fill_table(url, [*good(), sample_record(40, licence="GPL-3.0-only")])
    assert failing(silo.check()) == ["licence.allowed"]


def test_a_database_that_is_not_there_is_a_refusal_without_its_password(tmp_path: Path) -> None:
    silo = SampleSilo(tmp_path, SQL)
    url = "postgresql+psycopg://steward:s3cretword@127.0.0.1:9/bank"
    write_durably(tmp_path / "keys" / "database-url", url.encode())
    outcome = silo.check()
    assert failing(outcome) == ["data.available"]
    assert "s3cretword" not in repr(outcome)
    sqlite3.connect(tmp_path / "empty.db").close()
    write_durably(tmp_path / "keys" / "database-url", f"sqlite:///{tmp_path}/empty.db".encode())
    assert failing(silo.check()) == ["data.available"]
