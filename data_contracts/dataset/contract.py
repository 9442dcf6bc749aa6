"""The data contract: an ODCS v3.2.0 file, read strictly into one frozen value.

Guaranteed, in this order: the YAML is unambiguous (`strict_yaml`), the document fits the JSON
schema of the Open Data Contract Standard (Bitol, v3.2.0), every key that the schema leaves open is
known here, every quality rule is on the allow-list (`quality_rules`), every licence is one that
SPDX knows or a `LicenseRef-` that the contract names, and the data lies below the silo's data
root. A key that would have no effect is refused rather than ignored.

The federation's own terms are custom properties named `fl.*`; see `_Terms`.
"""

import json
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError

from data_contracts.artifact import digest_of_bytes
from data_contracts.dataset.licence import canonical_licence_id
from data_contracts.dataset.odcs_schema import refuse_unless_odcs
from data_contracts.dataset.quality_rules import (
    KeyRefusedError,
    QualityRule,
    Severity,
    checked_rule,
)
from data_contracts.dataset.strict_yaml import load_yaml, read_limited
from data_contracts.errors import DataStewardError
from data_contracts.wire_types import Digest, Instant, LicenceId, Part, PositiveCount, Text

DEFAULT_MINIMUM_COHORT = 10
RECORD_FIELDS = ("id", "subject", "prompt", "answer", "licence", "source")

_DESCRIPTION_KEYS = {
    "usage",
    "purpose",
    "limitations",
    "authoritativeDefinitions",
    "customProperties",
}
_SEVERITIES: dict[str, Severity] = {
    "critical": "critical",
    "error": "critical",
    "warning": "warning",
    "info": "warning",
}

DuoCode = Annotated[str, StringConstraints(pattern=r"^DUO:[0-9]{7}$")]
Cohort = Annotated[int, Field(ge=2, le=2**53 - 1)]


class DataContract(Part):
    """What may be trained on, for what, under which licences, until when.

    `digest` is the SHA-256 of the file's bytes; `data_path` is relative to the silo's data root;
    `minimum_cohort` counts distinct subjects.
    """

    id: Text
    version: Text
    digest: Digest
    purposes: Annotated[tuple[Text, ...], Field(min_length=1, max_length=20)]
    duo_codes: tuple[DuoCode, ...]
    licences: Annotated[tuple[LicenceId, ...], Field(min_length=1, max_length=100)]
    minimum_records: PositiveCount
    minimum_cohort: Cohort
    expires_at: Instant
    data_path: str
    rules: tuple[QualityRule, ...]

    def is_current(self, now: datetime) -> bool:
        """Whether the contract has not expired at `now` (an aware datetime)."""
        return now < self.expires_at


class _Terms(Part):
    """The custom properties that the federation reads; `fl.minimumCohort` alone has a default."""

    licences: Annotated[tuple[LicenceId, ...], Field(min_length=1, max_length=100)] = Field(
        alias="fl.licences"
    )
    minimum_records: PositiveCount = Field(alias="fl.minimumRecords")
    minimum_cohort: Cohort = Field(alias="fl.minimumCohort", default=DEFAULT_MINIMUM_COHORT)
    duo_codes: Annotated[tuple[DuoCode, ...], Field(max_length=30)] = Field(
        alias="fl.duoCodes", default=()
    )
    expires_at: Instant = Field(alias="fl.expires")


def load_contract(path: Path) -> DataContract:
    """Read the contract file at `path`; raises DataStewardError with file and path of the key."""
    return parse_contract(read_limited(path), str(path))


def parse_contract(data: bytes, source: str) -> DataContract:
    """The contract in `data`; `source` names the file in errors."""
    document = load_yaml(data, source)
    try:
        return _contract(document, digest_of_bytes(data))
    except KeyRefusedError as error:
        raise DataStewardError(
            f"contract file {source}: {error.path}",
            expected=error.expected,
            found=error.found,
            action="correct the key, and have the silo countersign the contract again",
        ) from None


def _contract(document: Any, digest: str) -> DataContract:
    refuse_unless_odcs(document)
    _refuse_misplaced_terms({**document, "customProperties": []}, "")
    terms = _terms(document.get("customProperties", []))
    return DataContract(
        id=_text(document, "id", "id"),
        version=_text(document, "version", "version"),
        digest=digest,
        purposes=_purposes(document),
        duo_codes=terms.duo_codes,
        licences=_licences(terms.licences),
        minimum_records=terms.minimum_records,
        minimum_cohort=terms.minimum_cohort,
        expires_at=terms.expires_at,
        data_path=_data_path(document),
        rules=_rules(_data_schema(document)),
    )


def _terms(properties: list[dict[str, Any]]) -> _Terms:
    """Properties that name another `vendor` are that vendor's; every other one must be known."""
    known = {str(field.alias) for field in _Terms.model_fields.values()}
    values: dict[str, Any] = {}
    for entry in properties:
        name = entry["property"]
        if entry.get("vendor", "consortia") != "consortia":
            continue
        path = f"customProperties[{name[:60]}]"
        if name not in known:
            raise KeyRefusedError(path, "one of " + ", ".join(sorted(known)), "an unknown key")
        if name in values:
            raise KeyRefusedError(path, "the property once", "it a second time")
        values[name] = entry["value"]
    try:
        return _Terms.model_validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name, *rest = (str(part) for part in first["loc"])
        place = "".join(f"[{part}]" for part in rest)
        raise KeyRefusedError(
            f"customProperties[{name}]{place}", "a value of its kind", first["msg"][:160]
        ) from None


def _refuse_misplaced_terms(node: Any, path: str) -> None:
    """A term below the top level would bind nobody, although its author thinks it does."""
    if isinstance(node, list):
        for position, member in enumerate(node):
            _refuse_misplaced_terms(member, f"{path}[{position}]")
    elif isinstance(node, dict):
        name = node.get("property")
        if isinstance(name, str) and name.startswith("fl."):
            raise KeyRefusedError(f"{path}.property", "fl.* at the top level only", name[:60])
        for key, member in node.items():
            _refuse_misplaced_terms(member, f"{path}.{key}".removeprefix("."))


def _purposes(document: dict[str, Any]) -> tuple[str, ...]:
    """Each line of `description.purpose` is one purpose."""
    description = document.get("description", {})
    for key in description:
        if key not in _DESCRIPTION_KEYS:
            expected = "only " + ", ".join(sorted(_DESCRIPTION_KEYS))
            raise KeyRefusedError(f"description.{key}", expected, "an unknown key")
    lines = [line.strip() for line in description.get("purpose", "").splitlines()]
    purposes = tuple(line for line in lines if line)
    if not 1 <= len(purposes) <= 20 or any(len(purpose) > 400 for purpose in purposes):
        expected = "1 to 20 lines of at most 400 characters, a purpose each"
        raise KeyRefusedError("description.purpose", expected, f"{len(purposes)} lines")
    return purposes


def _licences(stated: tuple[str, ...]) -> tuple[str, ...]:
    known = []
    for position, licence in enumerate(stated):
        canonical = canonical_licence_id(licence)
        if canonical is None:
            path = f"customProperties[fl.licences][{position}]"
            expected = "a licence id of the SPDX list, or LicenseRef- and a name"
            raise KeyRefusedError(path, expected, ascii(licence)[:80])
        known.append(canonical)
    return tuple(sorted(set(known)))


def _data_path(document: dict[str, Any]) -> str:
    servers = document.get("servers", [])
    if len(servers) != 1:
        raise KeyRefusedError("servers", "exactly one server", f"{len(servers)}")
    server = servers[0]
    for key, wanted in (("type", "local"), ("format", "jsonl")):
        if server[key] != wanted:
            raise KeyRefusedError(f"servers[0].{key}", wanted, ascii(server[key])[:40])
    if server.get("encoding", "UTF-8") != "UTF-8":
        raise KeyRefusedError("servers[0].encoding", "UTF-8", ascii(server["encoding"])[:40])
    path: str = server["path"]
    parts = PurePosixPath(path).parts
    escapes = path.startswith("/") or ".." in parts or not parts
    if escapes or len(path) > 400 or not path.isprintable() or set(path) & set("\\:*?[]"):
        expected = "a file relative to the silo's data root, without .. or wildcards"
        raise KeyRefusedError("servers[0].path", expected, ascii(path)[:80])
    return str(PurePosixPath(path))


def _data_schema(document: dict[str, Any]) -> dict[str, Any]:
    """The one schema object; its properties are the fields of a record, all of them text."""
    objects = document.get("schema", [])
    if len(objects) != 1:
        raise KeyRefusedError("schema", "exactly one object", f"{len(objects)}")
    properties: list[dict[str, Any]] = objects[0].get("properties", [])
    names = [entry["name"] for entry in properties]
    if sorted(names) != sorted(RECORD_FIELDS):
        expected = "the fields " + ", ".join(RECORD_FIELDS)
        raise KeyRefusedError("schema[0].properties", expected, ascii(names)[:120])
    for position, entry in enumerate(properties):
        path = f"schema[0].properties[{position}]"
        if entry.get("logicalType") != "string":
            found = ascii(entry.get("logicalType", "nothing"))[:40]
            raise KeyRefusedError(f"{path}.logicalType", "string", found)
        if "quality" in entry:
            raise KeyRefusedError(f"{path}.quality", "rules at schema[0].quality", "rules here")
    schema: dict[str, Any] = objects[0]
    return schema


def _rules(schema: dict[str, Any]) -> tuple[QualityRule, ...]:
    rules: list[QualityRule] = []
    for position, entry in enumerate(schema.get("quality", [])):
        path = f"schema[0].quality[{position}]"
        rule = _rule(entry, path)
        if any(rule.rule == other.rule for other in rules):
            raise KeyRefusedError(f"{path}.id", "a different id for each rule", rule.rule)
        rules.append(rule)
    return tuple(rules)


def _rule(entry: dict[str, Any], path: str) -> QualityRule:
    if entry.get("type") != "custom" or entry.get("engine") != "great-expectations":
        expected = "type custom with engine great-expectations"
        raise KeyRefusedError(path, expected, ascii(entry.get("type", "nothing"))[:40])
    severity = _SEVERITIES.get(entry.get("severity", "critical"))
    if severity is None:
        expected = "one of " + ", ".join(_SEVERITIES)
        raise KeyRefusedError(f"{path}.severity", expected, ascii(entry["severity"])[:40])
    identifier = entry.get("id", "")
    if not 1 <= len(identifier) <= 60:
        raise KeyRefusedError(f"{path}.id", "1 to 60 characters", f"{len(identifier)}")
    try:
        return checked_rule(f"contract.{identifier.lower()}", severity, entry["implementation"])
    except KeyRefusedError as error:
        where = f"{path}.{error.path}"
        raise KeyRefusedError(where, error.expected, error.found) from None


def _text(document: dict[str, Any], key: str, path: str) -> str:
    value: str = document[key]
    if not 1 <= len(value) <= 400:
        raise KeyRefusedError(path, "1 to 400 characters", f"{len(value)}")
    return value
