"""The page about contracts and its examples say what the code does.

Every example is read, passes on data made for it and is refused when one thing is wrong with them;
every term, every rule and every snippet of the page is one that exists.
"""

import random
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
import sqlalchemy as sa
from PIL import Image

from data_contracts.dataset.contract import DataContract, load_contract, parse_contract
from data_contracts.dataset.contract.closed_terms import Terms
from data_contracts.dataset.contract.data_section import FILE_FORMATS, SQL_FORMAT, read_source
from data_contracts.dataset.contract.quality_rules import ALLOWED_TYPES, read_rules
from data_contracts.dataset.contract.strict_yaml import load_yaml
from data_contracts.dataset.contract.terms import EGRESS, PREFIX, DataTerms, read_terms
from data_contracts.dataset.copyright.registry_builder import RegistryTerms, build_registry
from data_contracts.dataset.forms import TRAINED_FORMS
from data_contracts.dataset.image_hashes import hash_image
from data_contracts.dataset.pdq import PdqHash
from data_contracts.dataset.personal_data.kinds import KINDS
from data_contracts.dataset.personal_data.safe_harbor import coverage_table
from data_contracts.dataset.sources.data_source import FIELD_TYPES
from data_contracts.dataset.suite.built_in_rules import built_in_rules, summary_rules
from infra.disk.durable_files import write_durably
from infra.signing_keys import create_key
from tests.data_contracts.dataset.contract_samples import write_lines
from tests.silo_agent.gate_samples import NOW, SampleSilo, failing

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "contracts.md").read_text(encoding="utf-8")
EXAMPLES = ("hospital", "bank", "image-text")
FORMS_PAGE = (DOCS / "training-data.md").read_text(encoding="utf-8")
YAML_BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", PAGE + FORMS_PAGE, re.DOTALL | re.MULTILINE)
REQUIRED_TERMS = {
    "fl.licences": ["MIT"],
    "fl.minimumRecords": 1,
    "fl.expires": "2027-12-31T00:00:00Z",
}
_WORDS = [f"{a}{b}" for a in ("ba", "de", "ki", "lo", "mu", "ne") for b in ("ran", "tos", "vil")]
GUIDELINE = " ".join(random.Random(7).choices(_WORDS, k=120))

Row = dict[str, Any]
Change = Callable[[list[Row]], None]


def example(name: str) -> str:
    return (DOCS / "contracts" / f"{name}.yaml").read_text(encoding="utf-8")


def salad(number: int, words: int) -> str:
    """Words without meaning, other ones for every number."""
    return " ".join(random.Random(number).choices(_WORDS, k=words))


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_a_contract(name: str) -> None:
    contract = load_contract(DOCS / "contracts" / f"{name}.yaml")
    assert contract.rules
    assert f"contracts/{name}.yaml" in PAGE


def _terms(model: type[Terms], prefix: str) -> list[str]:
    """Every term by its alias, those inside a term after a dot."""
    named = []
    for field in model.model_fields.values():
        alias = f"{prefix}{field.alias}"
        named.append(alias)
        for inner in _inner(field.annotation):
            named += _terms(inner, f"{alias}.")
    return named


def _inner(annotation: Any) -> list[type[Terms]]:
    """The closed values that a field consists of, also as members of a tuple or of a union."""
    if isinstance(annotation, type) and issubclass(annotation, Terms):
        return [annotation]
    return [inner for part in get_args(annotation) for inner in _inner(part)]


@pytest.mark.parametrize("term", _terms(DataTerms, PREFIX))
def test_every_term_is_explained(term: str) -> None:
    assert f"| `{term}` |" in PAGE


def _everything() -> DataContract:
    """A contract that asks for every rule there is."""
    extra = (
        "  - {property: fl.packageLicence, value: CC-BY-4.0}\n"
        "  - {property: fl.balance, value: {maxMajorityPerMille: 500}}\n"
    )
    return parse_contract((example("image-text") + extra).encode(), "everything.yaml")


def test_every_built_in_rule_is_explained(tmp_path: Path) -> None:
    contract = _everything()
    rules = {rule.rule for rule in (*built_in_rules(contract), *summary_rules(contract.terms))}
    rules = {rule for rule in rules if not rule.startswith("contract.")}
    outcomes = hospital_silo(tmp_path, patients()).check().outcomes
    preconditions = {rule.rule for rule in outcomes if rule.type == "precondition"}
    assert {"labels.present", "opt_out.evidence", "images.allowed"} <= rules
    assert len(preconditions) == 4
    explained = set(re.findall(r"^\| `([a-z_.]+)` \|", PAGE, re.MULTILINE))
    assert rules | preconditions <= explained


def test_closed_lists_are_complete() -> None:
    names = (*FIELD_TYPES, *KINDS, *ALLOWED_TYPES, *FILE_FORMATS, SQL_FORMAT, *EGRESS)
    assert [name for name in names if f"`{name}`" not in PAGE] == []


def test_the_safe_harbor_table_is_the_package_s_own() -> None:
    rows = coverage_table()
    assert len(rows) == 18
    for row in rows:
        assert f"| {row.letter} | {row.identifier} | {row.coverage} |" in PAGE
    assert "de-identified" not in PAGE.lower()


def test_there_are_snippets() -> None:
    assert len(YAML_BLOCKS) > 5


@pytest.mark.parametrize("block", YAML_BLOCKS)
def test_every_snippet_is_read_as_in_a_contract(block: str) -> None:
    document = load_yaml(block.encode())
    assert set(document) <= {"servers", "schema", "quality", "customProperties"}
    terms = None
    if "quality" in document:
        assert read_rules(document["quality"])
    if "customProperties" in document:
        named = {entry["property"] for entry in document["customProperties"]}
        missing = [
            {"property": name, "value": value}
            for name, value in REQUIRED_TERMS.items()
            if name not in named
        ]
        terms = read_terms([*document["customProperties"], *missing])
        assert terms.licences
    if "servers" in document:
        stated = (terms.form, terms.classes) if terms else (None, None)
        assert read_source(document, *stated).fields


def test_every_form_that_is_trained_has_a_contract_of_its_own_on_the_page() -> None:
    forms = set()
    for block in re.findall(r"^```yaml\n(.*?)^```$", FORMS_PAGE, re.DOTALL | re.MULTILINE):
        document = load_yaml(block.encode())
        classes = {
            entry["property"]: entry["value"] for entry in document.get("customProperties", [])
        }
        forms.add(read_source(document, None, classes.get("fl.classes")).record_form.name)
    assert forms == set(TRAINED_FORMS)
    assert [name for name in TRAINED_FORMS if f"| `{name}` |" not in FORMS_PAGE] == []


def patients() -> list[Row]:
    """Three questions of each of 80 patients."""
    return [
        {
            "entry": f"q{n}",
            "patient_key": f"p{n // 3}",
            "question": salad(n, 12),
            "answer": salad(1000 + n, 20),
            "licence": "LicenseRef-Example-Hospital",
            "ward": "three",
            "consent": True,
            "language": "en",
        }
        for n in range(240)
    ]


def hospital_silo(home: Path, rows: list[Row]) -> SampleSilo:
    """A silo with the hospital's contract, its registry and these rows."""
    signer = create_key(home / "rights-holder.pem")
    silo = SampleSilo(home, example("hospital").replace("1" * 64, signer.public_key_hex))
    terms = RegistryTerms(
        federation="fed-one",
        name="clinical-guidelines",
        rights_holder="A publisher",
        issued_at=NOW,
        expires_at=NOW + timedelta(days=30),
    )
    build_registry([GUIDELINE], terms, b"r" * 32, signer, home / "registries")
    write_durably(home / "registries" / "clinical-guidelines.key", b"r" * 32)
    write_lines(home / "data" / "pharmacy" / "questions.jsonl", [*rows])
    return silo


def last(**changes: Any) -> Change:
    return lambda rows: rows[-1].update(changes)


def no_change(rows: list[Row]) -> None:
    """The data as the contract wants them."""


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        (no_change, []),
        (last(consent=False), ["consent.given"]),
        (last(consent=None), ["contract.consent-stated"]),
        (last(licence="MIT"), ["licence.allowed"]),
        (last(question="Was 03/14/2025 " + salad(5000, 12)), ["personal_data.limit"]),
        (last(answer=" ".join(GUIDELINE.split()[20:58])), ["copyright.overlap"]),
        (last(answer="Yes."), ["contract.answer-length"]),
    ],
)
def test_the_hospital_s_example(tmp_path: Path, change: Change, rules: list[str]) -> None:
    rows = patients()
    change(rows)
    outcome = hospital_silo(tmp_path, rows).check()
    assert failing(outcome) == rules
    assert outcome.passed == (not rules)


def customers() -> list[Row]:
    """Three tickets of each of 80 customers, about four products in turn."""
    return [
        {
            "ticket": f"t{n}",
            "customer_key": f"c{n // 3}",
            "question": salad(n, 12),
            "reply": salad(1000 + n, 20),
            "terms": "LicenseRef-Example-Bank",
            "channel": "chat",
            "product": ("cards", "loans", "savings", "transfers")[n % 4],
            "is_template": n % 20 == 0,
        }
        for n in range(240)
    ]


def bank_silo(home: Path, rows: list[Row]) -> SampleSilo:
    """A silo with the bank's contract over a table of SQLite."""
    silo = SampleSilo(home, example("bank"))
    url = f"sqlite:///{home}/bank.db"
    write_durably(home / "keys" / "database-url", url.encode())
    columns = [sa.Column(name, sa.Text) for name in rows[0] if name != "is_template"]
    metadata = sa.MetaData()
    table = sa.Table("support_answers", metadata, *columns, sa.Column("is_template", sa.Boolean))
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(table.insert(), rows)
    engine.dispose()
    return silo


def one_product(rows: list[Row]) -> None:
    for row in rows[:200]:
        row["product"] = "cards"


def no_product(rows: list[Row]) -> None:
    for row in rows:
        row["product"] = None


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        (no_change, []),
        (one_product, ["labels.balance"]),
        (no_product, ["labels.present"]),
        (
            last(reply="Your IBAN is DE89 3704 0044 0532 0130 00, as asked."),
            ["personal_data.limit"],
        ),
        (last(terms="CC-BY-4.0"), ["licence.allowed", "licence.claims_agree"]),
        (last(terms=None), ["licence.allowed", "licence.claims_agree"]),
        (lambda rows: rows.extend([dict(row) for row in rows[:20]]), ["duplicates.exact"]),
    ],
)
def test_the_bank_s_example(tmp_path: Path, change: Change, rules: list[str]) -> None:
    rows = customers()
    change(rows)
    outcome = bank_silo(tmp_path, rows).check()
    assert failing(outcome) == rules
    assert outcome.passed == (not rules)


def test_the_bank_s_data_drift_from_the_last_round(tmp_path: Path) -> None:
    silo = bank_silo(tmp_path, customers())
    silo.gate.remember(silo.check().findings_digest)
    assert failing(silo.check()) == []
    engine = sa.create_engine(f"sqlite:///{tmp_path}/bank.db")
    with engine.begin() as connection:
        merged = "UPDATE support_answers SET product = 'savings' WHERE product = 'cards'"
        connection.execute(sa.text(merged))
    engine.dispose()
    assert "drift.since_last_round" in failing(silo.check())


def pictures() -> list[Row]:
    """Sixty captioned pictures in LAION's columns, with what their sites say."""
    return [
        {
            "file_name": f"{n:02}.png",
            "TEXT": salad(n, 10),
            "URL": f"https://pictures.example/{n}",
            "LICENSE": ("CC-BY-4.0", "CC0-1.0")[n % 2],
            "NSFW": "UNLIKELY",
            "similarity": 0.31,
            "punsafe": 0.01,
            "pwatermark": 0.1,
            "tdm_reservation": "0",
            "tdm_policy": "",
            "tdm_checked_at": "2026-12-01",
            "robots": "noindex",
        }
        for n in range(60)
    ]


def picture_silo(home: Path, rows: list[Row]) -> SampleSilo:
    """A silo with the pictures' contract; a picture that nobody has is on the list."""
    silo = SampleSilo(home, example("image-text"))
    folder = home / "data" / "pictures"
    folder.mkdir(parents=True)
    generator = random.Random(3)
    for row in rows:
        noise = Image.frombytes("RGB", (8, 8), generator.randbytes(192))
        noise.resize((96, 96), Image.Resampling.BICUBIC).save(folder / row["file_name"])
    write_lines(folder / "metadata.jsonl", [*rows])
    write_durably(home / "registries" / "withdrawn-pictures.pdq", b"0f" * 32 + b"\n")
    return silo


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        (no_change, []),
        (last(tdm_reservation="1"), ["opt_out.none"]),
        (last(robots="noindex, noimageai"), ["opt_out.none"]),
        (last(tdm_checked_at="2025-01-01"), ["opt_out.evidence"]),
        (last(punsafe=0.06), ["images.allowed"]),
        (last(pwatermark=0.6), ["images.allowed"]),
        (last(LICENSE="CC-BY-NC-4.0"), ["licence.allowed"]),
        (last(LICENSE="?"), ["licence.allowed"]),
    ],
)
def test_the_example_of_pictures(tmp_path: Path, change: Change, rules: list[str]) -> None:
    rows = pictures()
    change(rows)
    outcome = picture_silo(tmp_path, rows).check()
    assert failing(outcome) == rules
    assert outcome.passed == (not rules)


def test_a_withdrawn_picture_is_refused(tmp_path: Path) -> None:
    silo = picture_silo(tmp_path, pictures())
    hashed = hash_image(tmp_path / "data" / "pictures" / "07.png")
    assert isinstance(hashed, PdqHash)
    listed = tmp_path / "registries" / "withdrawn-pictures.pdq"
    listed.write_text(hashed.bits.hex() + "\n", encoding="ascii")
    outcome = silo.check()
    assert failing(outcome) == ["images.allowed"]
    assert outcome.operator_notes == ("row 8: image refused: listed",)
