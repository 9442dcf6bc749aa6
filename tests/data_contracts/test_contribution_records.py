"""Requests and answers about contributions: consistent, bounded, small enough for one record."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from aggregator.contribution.coalitions import all_coalitions
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.envelope import max_document_bytes, seal, verify
from data_contracts.protocol.records import Acceptance, CoalitionLosses, ContributionRequest
from data_contracts.protocol.records.contribution_request import (
    MAX_COALITIONS,
    CoalitionAdapter,
    member_digits,
)
from tests.aggregator.federation_samples import key
from tests.data_contracts.record_samples import ADAPTER, AT_SILO, D0, NOW, PLACE, SAMPLES

REQUEST = dict(SAMPLES["contribution-request"])
LOSSES = dict(SAMPLES["coalition-losses"])


def part(members: str, **changes: Any) -> CoalitionAdapter:
    fields: dict[str, Any] = {"members": members, "adapter": ADAPTER}
    return CoalitionAdapter(**fields | changes)


def test_an_acceptance_shares_nothing_unless_it_says_so() -> None:
    assert not Acceptance(**AT_SILO, policy_digest=D0).shares_individual_delta


def test_coalitions_are_read_back_as_they_were_written() -> None:
    silos = ("bank-a", "bank-b", "bank-c")
    coalitions = all_coalitions(silos)
    fields = REQUEST | {
        "silos": silos,
        "coalitions": tuple(part(member_digits(silos, c)) for c in coalitions),
    }
    assert ContributionRequest(**fields).coalition_silos() == tuple(coalitions)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"silos": ("bank-b", "bank-a")}, "distinct and sorted"),
        ({"silos": ("bank-a", "bank-a")}, "distinct and sorted"),
        ({"coalitions": (part("11"), part("11"))}, "coalitions must be distinct"),
        ({"coalitions": (part("111"),)}, "one digit for each silo"),
        ({"coalitions": ()}, "at least 1 item"),
        ({"answer_by": NOW}, "issued_at < answer_by"),
    ],
)
def test_requests_that_contradict_themselves(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ContributionRequest(**REQUEST | changes)


@pytest.mark.parametrize("members", ["1", "01", "0011"])
def test_only_nobody_has_no_adapter(members: str) -> None:
    with pytest.raises(ValidationError, match="has an adapter"):
        part(members, adapter=None)
    with pytest.raises(ValidationError, match="has an adapter"):
        part("00", adapter=None, residual=ADAPTER)
    assert part("00", adapter=None).adapter is None


@pytest.mark.parametrize("members", ["", "2", "1 ", "1\n", "x"])
def test_members_are_digits(members: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        part(members)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": 0}, "greater than or equal to 1"),
        ({"losses": ()}, "at least 1 item"),
        ({"losses": (Decimal("-0.1"),)}, "greater than or equal to 0"),
        ({"losses": (Decimal("NaN"),)}, "decimal"),
        ({"losses": (Decimal("1"),) * (MAX_COALITIONS + 1)}, f"at most {MAX_COALITIONS} items"),
    ],
)
def test_losses_that_are_none(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CoalitionLosses(**LOSSES | changes)


def test_every_subset_of_ten_silos_with_long_names_fits_one_record() -> None:
    silos = tuple(f"hospital-{number:02d}-of-the-north" for number in range(10))
    assert {len(silo) for silo in silos} == {24}
    large = ArtifactRef(digest=D0, size=2**53 - 1)
    request = ContributionRequest(
        **PLACE,
        close_digest=D0,
        silos=silos,
        coalitions=tuple(
            part(member_digits(silos, coalition), adapter=large, residual=large)
            for coalition in all_coalitions(silos)
        ),
        answer_by=NOW + timedelta(hours=4),
    )
    assert len(request.coalitions) == MAX_COALITIONS
    sealed = seal(request, key("coordinator"))
    assert len(sealed.envelope) < max_document_bytes(type(sealed.record))
    again = verify(sealed.envelope, ContributionRequest, {key("coordinator").public_key_hex})
    assert again.record == request


def test_an_answer_to_the_largest_request_fits_one_record() -> None:
    losses = CoalitionLosses(**LOSSES | {"losses": (Decimal("12345.123456789"),) * MAX_COALITIONS})
    sealed = seal(losses, key("bank-a"))
    assert len(sealed.envelope) < max_document_bytes(type(sealed.record))
