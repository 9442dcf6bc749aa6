"""Every licence that an adapter can inherit has a name that a model hub takes."""

import re

import pytest

from data_contracts.licences.adapter_licence import NO_LICENCE
from data_contracts.licences.hub_licence import OTHER, hub_licence
from data_contracts.licences.table import LicenceTable


@pytest.mark.parametrize(
    ("expression", "licence", "name"),
    [
        ("Apache-2.0", "apache-2.0", None),
        ("CC-BY-NC-SA-4.0", "cc-by-nc-sa-4.0", None),
        ("LicenseRef-Gemma-Terms", "gemma", None),
        ("LicenseRef-Llama-3.2-Community", "llama3.2", None),
        ("LicenseRef-BigScience-OpenRAIL-M", "bigscience-openrail-m", None),
        ("GPL-3.0-only", "other", "gpl-3.0-only"),
        ("GPL-3.0-or-later", "other", "gpl-3.0-or-later"),
        ("Apache-2.0 AND CC-BY-SA-4.0", "other", "apache-2.0-and-cc-by-sa-4.0"),
        ("LicenseRef-North-Hospital", "other", "north-hospital"),
        ("LicenseRef-B AND LicenseRef-A AND MIT", "other", "b-and-a-and-mit"),
        (NO_LICENCE, "other", "no-licence"),
    ],
)
def test_how_a_card_names_it(expression: str, licence: str, name: str | None) -> None:
    found = hub_licence(expression)
    assert (found.licence, found.name) == (licence, name)


def test_every_licence_with_terms_has_a_name() -> None:
    for terms in LicenceTable():
        found = hub_licence(terms.licence)
        assert (found.licence == OTHER) == (found.name is not None)
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", found.name or found.licence), terms.licence
