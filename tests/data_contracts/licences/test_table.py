"""The table of terms: what is in it means what its licence says, and nobody changes it."""

import pytest

from data_contracts.errors import DataStewardError
from data_contracts.licences.expression import canonical_licence_id
from data_contracts.licences.table import LicenceTable
from data_contracts.protocol.records.licence_terms import LicenceTerms

REGISTRY = LicenceTable()


def own_terms(licence: str = "LicenseRef-Own", **changes: bool) -> LicenceTerms:
    flags = {
        "commercial": True,
        "derivatives": True,
        "share_alike": False,
        "attribution": False,
        "no_ai": False,
        "conditional": False,
        **changes,
    }
    return LicenceTerms(licence=licence, source="made for a test", **flags)


def test_every_row_is_named_as_spdx_names_it() -> None:
    for row in REGISTRY:
        assert canonical_licence_id(row.licence) == row.licence


def test_every_licence_that_must_be_known_is() -> None:
    wanted = """MIT Apache-2.0 BSD-2-Clause BSD-3-Clause ISC CC0-1.0 PDDL-1.0 ODC-By-1.0 ODbL-1.0
    CC-BY-2.0 CC-BY-3.0 CC-BY-4.0 CC-BY-SA-3.0 CC-BY-SA-4.0 CC-BY-NC-4.0 CC-BY-NC-SA-4.0
    CC-BY-ND-4.0 CC-BY-NC-ND-4.0 GPL-2.0-only GPL-3.0-only AGPL-3.0-only LGPL-3.0-only Unlicense
    LicenseRef-Gemma-Terms LicenseRef-Llama-3.1-Community LicenseRef-OpenRAIL-M LicenseRef-HPO
    LicenseRef-US-Government-Work LicenseRef-Public-Domain"""
    assert {row.licence for row in REGISTRY} >= set(wanted.split())


@pytest.mark.parametrize(
    ("licence", "flags"),
    [
        ("MIT", {"commercial", "derivatives", "attribution"}),
        ("CC0-1.0", {"commercial", "derivatives"}),
        ("CC-BY-SA-4.0", {"commercial", "derivatives", "attribution", "share_alike"}),
        ("CC-BY-NC-SA-4.0", {"derivatives", "attribution", "share_alike"}),
        ("CC-BY-ND-4.0", {"commercial", "attribution"}),
        ("CC-BY-NC-ND-4.0", {"attribution"}),
        ("ODbL-1.0", {"commercial", "derivatives", "attribution", "share_alike"}),
        ("LicenseRef-Gemma-Terms", {"commercial", "derivatives", "attribution", "conditional"}),
    ],
)
def test_terms(licence: str, flags: set[str]) -> None:
    row = REGISTRY.terms(licence)
    assert row is not None
    stated = row.model_dump(exclude={"licence", "source"})
    assert {name for name, value in stated.items() if value} == flags
    assert row.source


def test_an_unknown_licence_has_no_terms() -> None:
    assert REGISTRY.terms("EUPL-1.2") is None
    assert REGISTRY.terms("mit") is None


def test_a_contract_registers_its_own() -> None:
    row = own_terms(no_ai=True)
    assert LicenceTable([row]).terms("LicenseRef-Own") == row
    assert REGISTRY.terms("LicenseRef-Own") is None


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([own_terms("CC-BY-NC-4.0")], "an id that begins with LicenseRef-"),
        ([own_terms("LicenseRef-")], "an id that begins with LicenseRef-"),
        ([own_terms("LicenseRef-Gemma-Terms")], "an id that has no terms yet"),
        ([own_terms(), own_terms(no_ai=True)], "an id that has no terms yet"),
    ],
)
def test_known_terms_cannot_be_changed(rows: list[LicenceTerms], expected: str) -> None:
    with pytest.raises(DataStewardError, match="terms that the contract registers") as caught:
        LicenceTable(rows)
    assert caught.value.expected == expected
