"""The data contract: an ODCS v3.2.0 file, read strictly into one frozen value.

Guaranteed, in this order: the YAML is unambiguous (`strict_yaml`), its text is what people see
(`plain_tree`), the document fits the JSON schema of the Open Data Contract Standard (Bitol,
v3.2.0), every key that the schema leaves open is known here, the federation's terms are complete
(`terms`), every quality rule is on the allow-list (`quality_rules`), every licence is one that SPDX
knows or a `LicenseRef-` whose terms are known, every DUO code is known, and the data lies below the
silo's data root (`data_section`). A key that promises something which nobody would keep is refused;
one that only describes is left alone.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from data_contracts.dataset.contract.canaries import PLANTABLE_FORMS
from data_contracts.dataset.contract.data_section import read_source
from data_contracts.dataset.contract.odcs_schema import refuse_unless_odcs
from data_contracts.dataset.contract.plain_tree import refuse_unless_plain
from data_contracts.dataset.contract.quality_rules import (
    PROMPT_LENGTH,
    QualityRule,
    read_rules,
)
from data_contracts.dataset.contract.refused_key import KeyRefusedError
from data_contracts.dataset.contract.strict_yaml import (
    YamlRefusedError,
    load_yaml,
    read_limited,
)
from data_contracts.dataset.contract.terms import DataTerms, read_terms, refuse_misplaced
from data_contracts.dataset.licence_policy import canonical_licence_id
from data_contracts.dataset.personal_data.safe_harbor import rows_needing_attestation
from data_contracts.dataset.sources.data_source import DataSource
from data_contracts.errors import DataStewardError
from data_contracts.licences.duo import DUO_CODES
from data_contracts.licences.table import LicenceTable
from data_contracts.protocol.artifact import digest_of_bytes
from data_contracts.protocol.wire_types import Digest, Line, Part, Text

MAX_COLUMNS = 100
CONTRACTS_KEPT = 64
"""Contracts, or what is wrong with them, that are remembered by the digest of their bytes."""

UNREADABLE = "a contract that can be read"

_DESCRIPTION_KEYS = {
    "usage",
    "purpose",
    "limitations",
    "authoritativeDefinitions",
    "customProperties",
}


class DataContract(Part):
    """What may be trained on, for what, under which licences, until when.

    `digest` is the SHA-256 of the file's bytes; licences in `terms` are in SPDX's spelling. `name`
    describes and decides nothing.
    """

    id: Text
    name: Line | None = None
    version: Text
    digest: Digest
    purposes: tuple[Text, ...] = Field(min_length=1, max_length=20)
    terms: DataTerms
    source: DataSource
    rules: tuple[QualityRule, ...]

    def is_current(self, now: datetime) -> bool:
        """Whether the contract has not expired at `now` (an aware datetime)."""
        return now < self.terms.expires


def load_contract(path: Path) -> DataContract:
    """Read the contract file at `path`; raises DataStewardError with file and path of the key."""
    return parse_contract(read_limited(path), str(path))


def parse_contract(data: bytes, source: str) -> DataContract:
    """The contract in `data`; `source` names the file in errors."""
    read = _remembered(_Bytes(data))
    if isinstance(read, DataContract):
        return read
    place = f"{source}: {read.place}" if read.place else source
    raise DataStewardError(
        f"contract file {place}", expected=read.expected, found=read.found, action=read.action
    )


class _Bytes:
    """The bytes of a file, which are the same for the cache when their digest is; of what the cache
    keeps only the digest is left."""

    def __init__(self, data: bytes) -> None:
        self.digest = digest_of_bytes(data)
        self.data: bytes | None = data

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bytes) and self.digest == other.digest


@dataclass(frozen=True)
class _Refused:
    """Why bytes are no contract; `place` is in the file, empty for all of it."""

    place: str
    expected: str
    found: str
    action: str


@lru_cache(maxsize=CONTRACTS_KEPT)
def _remembered(file: _Bytes) -> DataContract | _Refused:
    """The same bytes are the same contract, and every door asks for it again."""
    data, file.data = file.data or b"", None
    action = "correct the key; the contract counts as silo and coordinator sign it then"
    try:
        return read_document(load_yaml(data), file.digest)
    except YamlRefusedError as error:
        action = "correct the file, and have silo and coordinator sign it again"
        return _Refused(error.place, error.expected, error.found, action)
    except KeyRefusedError as error:
        return _Refused(error.path, error.expected, error.found, action)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "a value"
        return _Refused(place, "a value of its kind", first["msg"][:160], action)
    except Exception as error:  # nothing that a file holds may end an agent
        found = f"one that ends in {type(error).__name__}"
        return _Refused("", UNREADABLE, found, action)


def read_document(document: Any, digest: str) -> DataContract:
    """The contract of a parsed document; raises KeyRefusedError or ValidationError."""
    refuse_unless_plain(document)
    _refuse_many_columns(document)
    refuse_unless_odcs(document)
    _refuse_promises(document)
    refuse_misplaced({**document, "customProperties": []}, "")
    terms = _checked_terms(read_terms(document.get("customProperties", [])))
    source = read_source(document, terms.form, terms.classes)
    _refuse_unplantable(terms, source)
    rules = read_rules(document["schema"][0].get("quality", []))
    _refuse_rules_about_nothing(rules, source)
    return DataContract(
        id=_text(document, "id"),
        name=document.get("name") or None,
        version=_text(document, "version"),
        digest=digest,
        purposes=_purposes(document),
        terms=terms,
        source=source,
        rules=rules,
    )


def _refuse_rules_about_nothing(rules: tuple[QualityRule, ...], source: DataSource) -> None:
    """A rule over what no record of this form has would hold whatever the data are."""
    for position, rule in enumerate(rules):
        if rule.column == PROMPT_LENGTH and not source.record_form.has_prompt:
            path = f"schema[0].quality[{position}].implementation.kwargs.column"
            expected = "answer_characters: records of plain text have no prompt"
            raise KeyRefusedError(path, expected, PROMPT_LENGTH)


def _refuse_unplantable(terms: DataTerms, source: DataSource) -> None:
    """A class, or a picture, has no room for a random secret."""
    form = source.record_form.name
    if terms.canaries is not None and form not in PLANTABLE_FORMS:
        expected = "none, or records of the form " + ", ".join(PLANTABLE_FORMS)
        raise KeyRefusedError("customProperties[fl.canaries]", expected, form)


def _refuse_many_columns(document: Any) -> None:
    """The schema of the standard takes milliseconds for each, and no field is listed twice."""
    schema = document.get("schema") if isinstance(document, dict) else None
    first = schema[0] if isinstance(schema, list) and schema else None
    columns = first.get("properties") if isinstance(first, dict) else None
    if isinstance(columns, list) and len(columns) > MAX_COLUMNS:
        expected = f"at most {MAX_COLUMNS} columns"
        raise KeyRefusedError("schema[0].properties", expected, f"{len(columns)}")


def _refuse_promises(document: dict[str, Any]) -> None:
    """ODCS has keys that promise what this reader does not enforce; see `fl.*` for what it does."""
    if document.get("status", "active") != "active":
        expected = "active, which says that the draft was read and is meant"
        raise KeyRefusedError("status", expected, ascii(document["status"])[:40])
    if document.get("slaProperties"):
        expected = "no service levels: expiry and retention are fl.expires and fl.retention"
        raise KeyRefusedError("slaProperties", expected, "some")


def _checked_terms(terms: DataTerms) -> DataTerms:
    """What a value alone cannot show: that licences and DUO codes mean something."""
    for position, code in enumerate(terms.duo_codes):
        if code not in DUO_CODES:
            path = f"customProperties[fl.duoCodes][{position}]"
            raise KeyRefusedError(path, "a code of the Data Use Ontology", code)
    try:
        LicenceTable(licence.terms() for licence in terms.licence_terms)
    except DataStewardError as error:
        path = "customProperties[fl.licenceTerms]"
        raise KeyRefusedError(path, error.expected, error.found) from None
    _refuse_unattested(terms)
    licences = _canonical("fl.licences", terms.licences)
    package = None
    if terms.package_licence is not None:
        (package,) = _canonical("fl.packageLicence", (terms.package_licence,))
    return terms.model_copy(update={"licences": licences, "package_licence": package})


def _refuse_unattested(terms: DataTerms) -> None:
    """With `safeHarbor`, somebody vouches for every identifier that no detector fully covers."""
    if not terms.personal_data.safe_harbor:
        return
    wanting = rows_needing_attestation(frozenset(terms.personal_data.kinds))
    missing = sorted({row.letter for row in wanting} - terms.attested())
    if missing:
        expected = "an attestation of every identifier that no detector fully covers"
        raise KeyRefusedError(
            "customProperties[fl.attestations]", expected, f"none of {', '.join(missing)}"
        )


def _canonical(term: str, stated: tuple[str, ...]) -> tuple[str, ...]:
    known = []
    for position, licence in enumerate(stated):
        canonical = canonical_licence_id(licence)
        if canonical is None:
            path = f"customProperties[{term}][{position}]"
            expected = "a licence id of the SPDX list, or LicenseRef- and a name"
            raise KeyRefusedError(path, expected, ascii(licence)[:80])
        known.append(canonical)
    return tuple(sorted(set(known)))


def _purposes(document: dict[str, Any]) -> tuple[str, ...]:
    """Each line of `description.purpose` is one purpose."""
    description = document.get("description", {})
    for key in description:
        if key not in _DESCRIPTION_KEYS:
            expected = "only " + ", ".join(sorted(_DESCRIPTION_KEYS))
            raise KeyRefusedError(f"description.{key}", expected, "an unknown key")
    lines = [line.strip() for line in description.get("purpose", "").split("\n")]
    purposes = tuple(line for line in lines if line)
    if not 1 <= len(purposes) <= 20 or any(len(purpose) > 400 for purpose in purposes):
        expected = "1 to 20 lines of at most 400 characters, a purpose each"
        raise KeyRefusedError("description.purpose", expected, f"{len(purposes)} lines")
    return purposes


def _text(document: dict[str, Any], key: str) -> str:
    value: str = document[key]
    if not 1 <= len(value) <= 400:
        raise KeyRefusedError(key, "1 to 400 characters", f"{len(value)}")
    return value
