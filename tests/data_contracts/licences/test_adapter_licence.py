"""What a merged adapter inherits: the base binds, some data bind, and some cannot be joined."""

import re
from itertools import permutations

import pytest

from data_contracts.licences.adapter_licence import inherited_licence
from data_contracts.licences.expression import canonical_expression

GEMMA = "LicenseRef-Gemma-Terms"


@pytest.mark.parametrize(
    ("base", "data", "expression"),
    [
        ("Apache-2.0", [], "Apache-2.0"),
        ("Apache-2.0", ["MIT", "CC-BY-4.0", "CC0-1.0"], "Apache-2.0"),
        ("Apache-2.0", ["CC-BY-SA-4.0", "MIT"], "Apache-2.0 AND CC-BY-SA-4.0"),
        ("Apache-2.0", ["CC-BY-NC-4.0"], "Apache-2.0 AND CC-BY-NC-4.0"),
        ("Apache-2.0", ["CC-BY-NC-SA-4.0", "CC-BY-NC-4.0"], None),
        ("Apache-2.0", ["GPL-3.0-only"], "Apache-2.0 AND GPL-3.0-only"),
        ("GPL-2.0-or-later", ["GPL-3.0-only"], "GPL-2.0-or-later AND GPL-3.0-only"),
        ("MIT", ["CC-BY-SA-3.0", "CC-BY-SA-4.0"], "CC-BY-SA-3.0 AND CC-BY-SA-4.0 AND MIT"),
        ("CC-BY-SA-4.0", ["CC-BY-SA-4.0"], "CC-BY-SA-4.0"),
        (GEMMA, ["MIT"], GEMMA),
        (GEMMA, ["CC-BY-NC-4.0"], f"CC-BY-NC-4.0 AND {GEMMA}"),
        ("MIT OR GPL-3.0-only", ["Apache-2.0 OR CC-BY-SA-4.0"], "MIT"),
    ],
)
def test_what_is_inherited(base: str, data: list[str], expression: str | None) -> None:
    found = inherited_licence(base, data)
    expression = expression or " AND ".join(sorted([base, *data]))
    assert found.permitted
    assert found.expression == expression
    assert found.licence == (None if " AND " in expression else expression)
    assert canonical_expression(found.expression) is not None


@pytest.mark.parametrize(
    ("base", "data", "reason"),
    [
        ("MIT", ["CC-BY-SA-4.0", "GPL-3.0-only"], "CC-BY-SA-4.0 and GPL-3.0-only cannot"),
        ("GPL-3.0-only", ["CC-BY-SA-4.0"], "CC-BY-SA-4.0 and GPL-3.0-only cannot"),
        ("MIT", ["CC-BY-NC-4.0", "GPL-3.0-only"], "CC-BY-NC-4.0 and GPL-3.0-only cannot"),
        ("CC-BY-SA-4.0", ["CC-BY-NC-SA-4.0"], "CC-BY-NC-SA-4.0 and CC-BY-SA-4.0 cannot"),
        (GEMMA, ["CC-BY-SA-4.0"], f"CC-BY-SA-4.0 and {GEMMA} cannot"),
        ("Apache-2.0", ["GPL-2.0-only"], "Apache-2.0 and GPL-2.0-only cannot"),
        ("GPL-2.0-only", ["GPL-3.0-only"], "GPL-2.0-only and GPL-3.0-only cannot"),
        ("MIT", ["CC-BY-ND-4.0"], "CC-BY-ND-4.0 does not permit training: licence.no_deriv"),
        ("MIT", ["NOASSERTION"], "NOASSERTION does not permit training: licence.no_assertion"),
        ("MIT", ["words of Mrs Example"], "NOASSERTION does not permit training"),
        ("LicenseRef-Unheard", [], "NOASSERTION does not permit training: licence.no_terms"),
    ],
)
def test_what_cannot_be_given_a_licence(base: str, data: list[str], reason: str) -> None:
    found = inherited_licence(base, data)
    assert not found.permitted
    assert found.licence == found.expression == "LicenseRef-No-Licence"
    assert any(sentence.startswith(reason) for sentence in found.reasons)
    assert not any("Example" in sentence or "Unheard" in sentence for sentence in found.reasons)


def test_attribution_is_owed_for_data_that_do_not_bind_too() -> None:
    found = inherited_licence("Apache-2.0", ["CC-BY-4.0", "CC0-1.0", "CC-BY-SA-4.0"])
    assert found.attribution == ("Apache-2.0", "CC-BY-4.0", "CC-BY-SA-4.0")
    assert found.reasons == (
        "Apache-2.0 asks to name its authors and notices",
        "Apache-2.0 binds what is made from the base model",
        "CC-BY-4.0 asks to name its authors and notices",
        "CC-BY-SA-4.0 asks for the same terms on what is made from the data",
        "CC-BY-SA-4.0 asks to name its authors and notices",
    )


def test_the_order_and_repetition_of_data_do_not_matter() -> None:
    data = ["CC-BY-SA-4.0", "MIT", "GPL-3.0-only", "MIT"]
    assert len({inherited_licence("Apache-2.0", order) for order in permutations(data)}) == 1


def test_a_single_licence_fits_a_record() -> None:
    for base in ("MIT", "LicenseRef-Llama-3.1-Community"):
        licence = inherited_licence(base, ["MIT"]).licence
        assert licence is not None
        assert re.fullmatch(r"[A-Za-z0-9.+-]{1,80}", licence)
