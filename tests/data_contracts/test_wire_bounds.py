"""Every bound of the wire, one step inside and one step outside, with the numbers written down."""

from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from data_contracts.limits import MAX_ROUND
from data_contracts.protocol import wire_types as wire
from data_contracts.protocol.records import (
    Close,
    CoalitionLosses,
    ContributionRequest,
    Membership,
    RoundPlan,
    RoundReport,
    Verdict,
    coalition_losses,
    contribution_request,
    copyright_registry,
    evaluation,
    merge_spec,
)
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget, SiloLayout
from data_contracts.protocol.records.close import Admitted, Likeness, Refused, Rejected
from data_contracts.protocol.records.evidence_ref import EvidenceRef
from data_contracts.protocol.records.licence_terms import LicenceTerms
from data_contracts.protocol.records.membership import EarlierMembership, Revocation
from data_contracts.protocol.records.merge_spec import DiLoCo, FedExP, MergeSpec
from data_contracts.protocol.records.plan_terms import CountedCopy, Retention
from data_contracts.protocol.records.round_report import InheritedLicence
from data_contracts.protocol.records.training_recipe import TrainingRecipe
from data_contracts.protocol.records.verdict import LicenceCount, RuleOutcome
from silo_agent.policy.policy_file import AllowedModel, Limits, Policy
from tests.data_contracts.record_samples import SAMPLES

LARGEST = 2**53 - 1
KEY = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
LONG = "a" * 24
REQUEST = SAMPLES["contribution-request"]
assert isinstance(REQUEST, ContributionRequest)
COALITION = REQUEST.coalitions[0]

TEXTS: list[tuple[Any, list[str], list[str]]] = [
    (wire.Name, ["ab", "a-1", LONG], ["a", "A1", "1a", "a-", "a_b", f"{LONG}a", "ab\n", " ab"]),
    (wire.FederationId, ["fed-inbo", "inbox-a"], ["a-inbox", "a-inbox-b", "-inbox"]),
    (wire.SiloId, ["coordinators"], ["coordinator"]),
    (wire.RuleId, ["a", "a.b_c-1", "a" * 80], ["", "A", "1a", ".a", "a b", "a" * 81, "a\n"]),
    (wire.Digest, ["0" * 64], ["0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n"]),
    (wire.Text, ["a", "a" * 400], ["", "a" * 401]),
    (
        wire.Day,
        ["2000-01-01", "2028-02-29", "2999-12-31"],
        [
            *("1999-12-31", "3000-01-01", "2026-13-01", "2026-02-29", "2026-00-10"),
            *("20261129", "2026-W48-7", "2026-1-1", "2026-11-29\n", " 2026-11-29", ""),
            "\uff12026-11-29",
        ],
    ),
    (wire.VersionId, ["a", "~" * 128], ["", "a b", "a" * 129, "\x7f", "a\n"]),
    (wire.SignedText, ["AA==", "A" * 16_384], ["", "A" * 16_385, "A-_=", "A===", "=", "A\n"]),
    (
        wire.ProgramVersion,
        ["1", "0.1.0", "1.2.3.4rc1+x"],
        ["", "v1", "1" + "x" * 21, "1.2 ", "1\n"],
    ),
    (wire.LicenceId, ["MIT", "LicenseRef-A.b+", "a" * 80], ["", "a b", "a/b", "a" * 81, "MIT\n"]),
    (wire.HubId, ["a/b", "A-1/b_.2"], ["a", "/b", "a/b/c", "../b", "a/", f"{'a' * 97}/b", "a/b\n"]),
    (wire.HubCommit, ["0" * 40], ["0" * 39, "main", "F" * 40, "0" * 40 + "\n"]),
    (wire.ModuleName, ["a", "a.b_1"], ["", ".a", "a.", "a..b", "a-b", "a" + ".a" * 16, "a\n"]),
    (wire.Line, ["a b"], [" a", "a ", "a\nb", "", "a\u2028b"]),
    (wire.InstitutionName, ["a" * 100], ["a" * 101, "a  b"]),
    (wire.BaseModelName, ["org/model"], ["/a", "~/a", "./a", "a\\b"]),
    (wire.PublicKeyHex, [KEY], [KEY.upper(), KEY[:-1], f"{KEY}\n", "0" * 64, "01" + "00" * 31]),
    (contribution_request.MemberDigits, ["01", "1" * 1000], ["", "2", "1" * 1001, "1\n"]),
]

NUMBERS: list[tuple[Any, list[Any], list[Any]]] = [
    (wire.Count, [0, LARGEST], [-1, LARGEST + 1, True, 1.0, "1"]),
    (wire.PositiveCount, [1, LARGEST], [0, LARGEST + 1]),
    (wire.RoundNumber, [1, MAX_ROUND], [0, MAX_ROUND + 1]),
    (wire.AttemptNumber, [1, 99], [0, 100]),
    (coalition_losses.Loss, ["0"], ["-0.000001"]),
    (copyright_registry.WordCount, [1, 1000], [0, 1001]),
    (evaluation.Loss, ["0", "1000000"], ["-0.000001", "1000000.000001"]),
    (evaluation.StandardError, ["0", "1000000"], ["-0.000001", "1000000.000001"]),
    (merge_spec.Rate, ["0.000001"], ["0", "-1"]),
    (merge_spec.Decay, ["0", "0.999"], ["-0.001", "1"]),
]

FIELDS: list[tuple[type[Any], str, list[Any], list[Any]]] = [
    (Membership, "number", [1, 999_999], [0, 1_000_000]),
    (Membership, "root_threshold", [1, 16], [0, 17]),
    (FedExP, "max_step", ["1", "100"], ["0.99", "100.01"]),
    (DiLoCo, "momentum", ["0.1", "0.999"], ["0", "-0.1", "1"]),
    (MergeSpec, "residual_rank", [1, 1024], [0, 1025]),
    (AdapterLayout, "rank", [1, 1024], [0, 1025]),
    (AdapterLayout, "alpha", [1, 4096], [0, 4097]),
    (SiloLayout, "rank", [1, 1024], [0, 1025]),
    (SiloLayout, "alpha", [1, 4096], [0, 4097]),
    (TrainingRecipe, "sequence_length", [16, 1_000_000], [15, 1_000_001]),
    (Retention, "days", [1, 36_500], [0, 36_501]),
    (Limits, "max_learning_rate", [0.000001], [0.0, -1.0]),
]


TARGET = AdapterTarget(module="m.q", in_features=8, out_features=8)


def any_of(part: type[Any]) -> Any:
    """An instance that is not looked into: only how many there are counts."""
    return part.model_construct()


LENGTHS: list[tuple[type[Any], str, Any, int, int | None]] = [
    (Close, "admitted", any_of(Admitted), 0, 1000),
    (Close, "rejected", any_of(Rejected), 0, 1000),
    (Close, "refused", any_of(Refused), 0, 1000),
    (Close, "missing", "bank-a", 0, 1000),
    (Close, "held", any_of(EvidenceRef), 0, 5000),
    (Close, "alike", any_of(Likeness), 1, 1000),
    (CoalitionLosses, "losses", Decimal("1"), 1, contribution_request.MAX_COALITIONS),
    (ContributionRequest, "silos", "bank-a", 1, 1000),
    (
        ContributionRequest,
        "coalitions",
        COALITION,
        1,
        contribution_request.MAX_COALITIONS,
    ),
    (Membership, "earlier", any_of(EarlierMembership), 0, 1000),
    (Membership, "root_keys", KEY, 1, 16),
    (Membership, "retired_root_keys", KEY, 0, 16),
    (Membership, "revoked", any_of(Revocation), 0, 1000),
    (AdapterLayout, "targets", TARGET, 1, 2000),
    (SiloLayout, "modules", "a.b", 1, None),
    (RoundPlan, "cohort", "bank-a", 1, 1000),
    (RoundPlan, "counted_copies", any_of(CountedCopy), 1, 1000),
    (InheritedLicence, "attribution", "MIT", 0, 200),
    (InheritedLicence, "reasons", "a", 0, 400),
    (RoundReport, "evidence", any_of(EvidenceRef), 0, 8000),
    (Verdict, "outcomes", any_of(RuleOutcome), 0, 100),
    (Verdict, "licences", any_of(LicenceCount), 0, 200),
    (Verdict, "registered_licences", any_of(LicenceTerms), 0, 50),
    (Policy, "purposes", "a", 1, None),
    (Policy, "trust_modes", "auditable", 1, None),
    (Policy, "models", any_of(AllowedModel), 1, None),
]


def reads(kind: Any, value: Any) -> bool:
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def field(model: type[Any], name: str) -> Any:
    """A field as it is by itself, without what a validator of the whole says."""
    info = model.model_fields[name]
    return Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation


@pytest.mark.parametrize(("kind", "inside", "outside"), [*TEXTS, *NUMBERS])
def test_a_kind_of_value_ends_where_it_says(
    kind: Any, inside: list[Any], outside: list[Any]
) -> None:
    assert [value for value in inside if not reads(kind, value)] == []
    assert [value for value in outside if reads(kind, value)] == []


@pytest.mark.parametrize(("model", "name", "inside", "outside"), FIELDS)
def test_a_number_ends_where_its_field_says(
    model: type[Any], name: str, inside: list[Any], outside: list[Any]
) -> None:
    kind = field(model, name)
    assert [value for value in inside if not reads(kind, value)] == []
    assert [value for value in outside if reads(kind, value)] == []


@pytest.mark.parametrize(("model", "name", "item", "least", "most"), LENGTHS)
def test_a_list_is_as_long_as_its_field_says(
    model: type[Any], name: str, item: Any, least: int, most: int | None
) -> None:
    kind = field(model, name)
    assert reads(kind, (item,) * max(least, 1))
    if least:
        assert not reads(kind, (item,) * (least - 1))
    if most is not None:
        assert reads(kind, (item,) * most)
        assert not reads(kind, (item,) * (most + 1))
