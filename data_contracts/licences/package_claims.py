"""What a package claims about its licence, to hold against what its records state.

A claim about a package is no evidence about what is in it: it is written by whoever packed it, and
often means the code alone (npm's emoji-datasource-twitter says MIT, its pictures are CC-BY-4.0).
So a claim is never taken for a record's licence; a record that states none has none. All a claim
can do is disagree, which is a finding for a person.

Of several places in one package the most exact that says something counts; places that contradict
each other claim nothing.
"""

import email.message
import email.parser
import email.policy
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_contracts.licences.claim_names import CARD_LICENCES, CLASSIFIER_LICENCES
from data_contracts.licences.expression import NO_ASSERTION, canonical_expression
from data_contracts.licences.package_metadata import (
    card_metadata,
    npm_metadata,
    unreadable,
    wheel_metadata,
)

_NAME = re.compile(r"[A-Za-z0-9@][A-Za-z0-9._/@+-]{0,213}")


@dataclass(frozen=True)
class PackageClaim:
    """`licence` is a canonical SPDX expression, or NOASSERTION; `source` is where it is claimed.

    `version` is None for a card, which belongs to no version.
    """

    package: str
    version: str | None
    licence: str
    source: str


def read_package_claim(path: Path) -> PackageClaim:
    """The claim of a wheel (.whl), an npm tarball (.tgz) or a data set card (.md).

    Raises DataStewardError when the file is none of them or cannot be read.
    """
    if path.suffix == ".whl":
        return _of_wheel(path)
    if path.suffix == ".tgz":
        return _of_npm(path)
    if path.suffix == ".md":
        return _of_card(path)
    raise unreadable(path, "a .whl, .tgz or .md file", "another kind of file")


def claims_agree(record_licence: str | None, claim: PackageClaim) -> bool:
    """Whether the record states the very licence that the package claims.

    Silence on either side agrees with nothing. Disagreement does not say who is right.
    """
    return licences_agree(record_licence, claim.licence)


def licences_agree(one: str | None, other: str | None) -> bool:
    """Whether two SPDX expressions are equivalent, both of known licences."""
    canonical = canonical_expression(one or "")
    return canonical is not None and canonical == canonical_expression(other or "")


def _of_wheel(path: Path) -> PackageClaim:
    """Core metadata 2.4: License-Expression, before it License and classifiers (PEP 639)."""
    parser = email.parser.BytesParser(policy=email.policy.compat32)
    metadata = parser.parsebytes(wheel_metadata(path), headersonly=True)
    name, version = _name(path, metadata["Name"]), _name(path, metadata["Version"])
    expression = metadata["License-Expression"]
    if expression is not None:
        return PackageClaim(name, version, _claimed(expression), "METADATA License-Expression")
    return PackageClaim(name, version, *_old_wheel_claim(metadata))


def _old_wheel_claim(metadata: email.message.Message) -> tuple[str, str]:
    text = _claimed(metadata["License"])
    classifiers = [str(value).strip() for value in metadata.get_all("Classifier", [])]
    named = [value for value in classifiers if value.startswith("License ::")]
    # A classifier that names a family of licences, such as BSD, claims none of them.
    claimed = {CLASSIFIER_LICENCES.get(value, NO_ASSERTION) for value in named}
    if text == NO_ASSERTION and len(claimed) == 1:
        return claimed.pop(), "METADATA Classifier"
    contradicted = bool(claimed - {text, NO_ASSERTION})
    return NO_ASSERTION if contradicted else text, "METADATA License"


def _of_npm(path: Path) -> PackageClaim:
    try:
        document = json.loads(npm_metadata(path).decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise unreadable(path, "package.json in JSON", "something else") from None
    if not isinstance(document, dict):
        raise unreadable(path, "a JSON object in package.json", "something else")
    name, version = _name(path, document.get("name")), _name(path, document.get("version"))
    licence = document.get("license")
    # npm's form before SPDX expressions; `licenses`, a list without AND or OR, claims nothing.
    stated = licence.get("type") if isinstance(licence, dict) else licence
    return PackageClaim(name, version, _claimed(stated), "package.json license")


def _of_card(path: Path) -> PackageClaim:
    """Hugging Face's data set card: YAML front matter whose `license` is one id, or several."""
    document = card_metadata(path)
    stated = document.get("license") if isinstance(document, dict) else None
    several = stated if isinstance(stated, list) else [stated]
    licences = sorted({_of_card_id(licence) for licence in several})
    # Several licences cover different parts, and which parts is not said: all of them count.
    claimed = NO_ASSERTION if NO_ASSERTION in licences else _claimed(" AND ".join(licences))
    return PackageClaim(_name(path, path.resolve().parent.name), None, claimed, "card license")


def _of_card_id(licence: Any) -> str:
    if not isinstance(licence, str):
        return NO_ASSERTION
    return _claimed(CARD_LICENCES.get(licence, licence))


def _claimed(stated: Any) -> str:
    """The canonical expression of a claim; what is no expression of known licences is silence."""
    return (canonical_expression(stated) if isinstance(stated, str) else None) or NO_ASSERTION


def _name(path: Path, stated: Any) -> str:
    if not isinstance(stated, str) or not _NAME.fullmatch(stated.strip()):
        raise unreadable(path, "a package name and version", "something else")
    return stated.strip()
