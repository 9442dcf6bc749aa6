"""Data use conditions: what software decides, what a person attests, and what nobody knows."""

import re

import pytest

from data_contracts.licences.duo import DUO_CODES, judge_duo
from data_contracts.protocol.records.licence_terms import Use

GRU, HMB, NRES = "DUO:0000042", "DUO:0000006", "DUO:0000004"
IRB, NCU, NPUNCU, NMDS = "DUO:0000021", "DUO:0000046", "DUO:0000018", "DUO:0000015"
ALL = frozenset(DUO_CODES)


@pytest.mark.parametrize(
    ("codes", "use", "attested", "reason"),
    [
        ([], "commercial", (), None),
        ([GRU], "commercial", (), None),
        ([NRES], "research", (), None),
        ([HMB], "research", (), "duo.not_attested.hmb"),
        ([HMB], "research", (HMB,), None),
        ([GRU, IRB], "research", (), "duo.not_attested.irb"),
        ([GRU, IRB], "research", (IRB,), None),
        ([GRU, IRB], "research", (HMB,), "duo.not_attested.irb"),
        ([GRU, NCU], "research", (), None),
        ([GRU, NCU], "commercial", (NCU,), "duo.forbidden.ncu"),
        ([GRU, NPUNCU], "commercial", (NPUNCU,), "duo.forbidden.npuncu"),
        ([GRU, NPUNCU], "research", (), "duo.not_attested.npuncu"),
        ([GRU, NMDS], "research", (NMDS,), "duo.forbidden.nmds"),
        ([IRB], "research", (IRB,), "duo.no_permission"),
        ([GRU, HMB], "research", (HMB,), "duo.several_permissions"),
        ([GRU, "DUO:0000001"], "research", (), "duo.unknown_code"),
        (["DUO:9999999"], "research", ("DUO:9999999",), "duo.unknown_code"),
        (["gru"], "research", (), "duo.unknown_code"),
    ],
)
def test_judge_duo(codes: list[str], use: Use, attested: tuple[str, ...], reason: str) -> None:
    assert judge_duo(codes, use, frozenset(attested)) == reason
    assert judge_duo(reversed(codes), use, frozenset(attested)) == reason


def test_a_modifier_never_widens_what_its_permission_allows() -> None:
    modifiers = [code for code, term in DUO_CODES.items() if term.is_modifier]
    assert judge_duo([GRU], "commercial") is None
    assert {judge_duo([HMB, code], "research") for code in modifiers}.isdisjoint({None})


def test_every_code_has_a_decision_and_every_reason_is_a_rule_id() -> None:
    assert len(DUO_CODES) == 23
    for code, term in DUO_CODES.items():
        codes = [GRU, code] if term.is_modifier else [code]
        reason = judge_duo(codes, "research")
        assert (reason is not None) == (term.needs_attestation or term.forbids("research"))
        assert re.fullmatch(r"[a-z][a-z0-9_.-]{0,79}", reason or "none")
        assert judge_duo(codes, "research", ALL) in (None, "duo.forbidden.nmds")
