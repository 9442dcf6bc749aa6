"""Guards that stand before or behind others: each is asked by itself, where no other answers."""

import base64
import json
import struct
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rfc8785
from pydantic import ValidationError
from safetensors.numpy import save

from data_contracts.adapters.adapter_format import expected_shapes, open_adapter
from data_contracts.adapters.block_quantisation import SCHEMES
from data_contracts.adapters.quantised_format import codes_name, open_quantised, scales_name
from data_contracts.adapters.remembered_start import RememberedStart
from data_contracts.adapters.submission_gate import check_submission
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.artifact import artifact_of_bytes
from data_contracts.protocol.dsse import key_id, signing_keys
from data_contracts.protocol.envelope import (
    claims_kind,
    max_document_bytes,
    seal,
    unverified_record,
    verify,
)
from data_contracts.protocol.payload import MAX_TABLE_BYTES, canonical_bytes, table_bytes
from data_contracts.protocol.records import Acceptance, Close, Membership, Record
from data_contracts.protocol.records.adapter_layout import AdapterLayout, SiloLayout
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from data_contracts.protocol.records.membership import EarlierMembership, Member
from data_contracts.protocol.records.merge_spec import (
    FedExP,
    HeavyBall,
    MergeSpec,
    RobustSpec,
)
from data_contracts.protocol.records.round_plan import RoundPlan
from data_contracts.protocol.strict_json import parse_strict
from tests.data_contracts.quantised_samples import A_NAME as CODED
from tests.data_contracts.quantised_samples import LAYOUT as CODED_LAYOUT
from tests.data_contracts.quantised_samples import Constant, content, rule_of
from tests.data_contracts.record_samples import ADAPTER, PLAN, SAMPLES
from tests.data_contracts.test_adapter_format import (
    A_NAME,
    B_NAME,
    LAYOUT,
    NAMES,
    joined,
    parts,
    tensors,
)
from tests.data_contracts.test_adapter_format import rule_of as whole_rule_of
from tests.data_contracts.test_envelope import ACCEPTANCE, KEYS, MANY, MEMBERSHIP, envelope_of

KEY = KEYS[0].public_key_hex
INT8 = SCHEMES["int8"]


def refused(document: bytes, kind: type[Record] = Acceptance) -> UntrustedInputError:
    with pytest.raises(UntrustedInputError) as caught:
        verify(document, kind, [KEY])
    return caught.value


def changed(**fields: Any) -> bytes:
    return rfc8785.dumps(json.loads(seal(ACCEPTANCE, KEYS[0]).envelope) | fields)


def with_spare_bits(text: str) -> str:
    """The same bytes to a lenient decoder: bits that the padding leaves over are set."""
    stem, alphabet = (
        text.rstrip("="),
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    )
    assert stem != text
    return stem[:-1] + alphabet[alphabet.index(stem[-1]) | 1] + "=" * (len(text) - len(stem))


class TestEnvelope:
    def test_a_signature_has_one_spelling_in_base64(self) -> None:
        (signature,) = json.loads(changed())["signatures"]
        other = with_spare_bits(signature["sig"])
        assert base64.b64decode(other) == base64.b64decode(signature["sig"])
        document = changed(signatures=[signature | {"sig": other}])
        assert refused(document).expected == "canonical base64"

    @pytest.mark.parametrize("signatures", [5, None, True, "x", {"keyid": "a", "sig": "AAAA"}])
    def test_signatures_are_a_list(self, signatures: Any) -> None:
        assert refused(changed(signatures=signatures)).rule == "envelope.envelope"

    def test_signatures_are_counted_before_they_are_looked_at(self) -> None:
        payload = canonical_bytes(MEMBERSHIP)
        most = envelope_of(payload, Membership.payload_type(), *MANY[:32])
        assert signing_keys(most, [KEY]) == {KEY}
        with pytest.raises(UntrustedInputError, match="1 to 32 signatures"):
            signing_keys(envelope_of(payload, Membership.payload_type(), *MANY), [KEY])

    def test_only_who_signed_has_signed(self) -> None:
        envelope = seal(MEMBERSHIP, *KEYS[:2]).envelope
        keys = [key.public_key_hex for key in KEYS[:4]]
        assert signing_keys(envelope, keys) == set(keys[:2])

    def test_a_signature_under_another_key_id_is_none_of_that_key(self) -> None:
        content = json.loads(seal(ACCEPTANCE, KEYS[0]).envelope)
        content["signatures"][0]["keyid"] = key_id(KEYS[1].public_key_hex)
        assert signing_keys(rfc8785.dumps(content), [KEY]) == frozenset()

    @pytest.mark.parametrize("read", [refused, lambda d: _unverified(d)])
    def test_a_document_is_measured_before_it_is_parsed(
        self, read: Callable[[bytes], UntrustedInputError]
    ) -> None:
        limit = max_document_bytes(Acceptance)
        error = read(b"[" * (limit + 1))
        assert (error.rule, error.expected) == ("envelope.size", f"at most {limit} bytes")
        assert read(b"[" * limit).rule != "envelope.size"

    def test_a_payload_is_measured_by_itself(self) -> None:
        limit = Acceptance.max_payload_bytes
        payload = b"[" + b" " * (limit - 1) + b"]"
        assert len(payload) == limit + 1
        document = envelope_of(payload, Acceptance.payload_type(), KEYS[0])
        assert len(document) <= max_document_bytes(Acceptance)
        assert refused(document).rule == "envelope.size"

    def test_json_is_measured_before_it_is_parsed(self) -> None:
        assert parse_strict(b"[1]", 3) == [1]
        with pytest.raises(UntrustedInputError) as caught:
            parse_strict(b"[1]", 2)
        assert caught.value.rule == "envelope.size"

    @pytest.mark.parametrize("kind", ["", "x", "application/json", Acceptance.kind])
    def test_a_type_that_is_none_of_ours_claims_nothing(self, kind: str) -> None:
        document = envelope_of(canonical_bytes(ACCEPTANCE), kind, KEYS[0])
        assert not claims_kind(document, Acceptance)


def _unverified(document: bytes) -> UntrustedInputError:
    with pytest.raises(UntrustedInputError) as caught:
        unverified_record(document, Acceptance)
    return caught.value


class TestTable:
    """Tables whose payload names them, under the right signature."""

    CLOSE = SAMPLES["close"]

    def document(self, table: bytes, spelt: Callable[[Any], bytes] = rfc8785.dumps) -> bytes:
        payload = json.loads(canonical_bytes(self.CLOSE))
        payload["table"] = artifact_of_bytes(table).model_dump()
        return envelope_of(spelt(payload), Close.payload_type(), KEYS[0]) + b"\n" + table

    def rows(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(table_bytes(self.CLOSE) or b"")
        return found

    def test_the_record_itself_passes(self) -> None:
        table = table_bytes(self.CLOSE)
        assert table is not None and len(table) < MAX_TABLE_BYTES
        assert verify(self.document(table), Close, [KEY]).record == self.CLOSE

    def test_a_list_of_the_names_is_no_table(self) -> None:
        table = rfc8785.dumps(sorted(self.rows()))
        assert refused(self.document(table), Close).expected == "its own lists"

    def test_a_table_says_nothing_of_the_payload(self) -> None:
        for more in ({"issued_at": "2026-03-02T09:00:01Z"}, {"x": 1}):
            table = rfc8785.dumps(self.rows() | more)
            assert refused(self.document(table), Close).rule == "envelope.schema"

    def test_a_table_has_one_spelling(self) -> None:
        table = json.dumps(self.rows()).encode()
        assert table != table_bytes(self.CLOSE)
        assert refused(self.document(table), Close).expected == "one spelling of every value"

    def test_a_payload_beside_a_table_has_one_spelling(self) -> None:
        table = table_bytes(self.CLOSE) or b""
        document = self.document(table, lambda payload: json.dumps(payload).encode())
        assert refused(document, Close).rule in {"envelope.canonical", "envelope.schema"}


class TestGate:
    def test_a_file_that_shrinks_while_it_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "adapter"
        path.write_bytes(save(tensors()))
        adapter = open_adapter(path, LAYOUT)
        path.write_bytes(path.read_bytes()[:-4])
        with pytest.raises(UntrustedInputError, match="a shorter file"):
            list(adapter.modules())

    @pytest.mark.parametrize("name", [A_NAME, B_NAME])
    def test_values_end_at_ten_thousand(self, tmp_path: Path, name: str) -> None:
        found = tensors()
        for value in (1e4, -1e4):
            found[name][0, 0] = value
            (tmp_path / "a").write_bytes(save(found))
            assert list(open_adapter(tmp_path / "a", LAYOUT).modules())
            found[name][0, 0] = np.nextafter(np.float32(value), np.float32(value * 2))
            assert whole_rule_of(tmp_path / "a", save(found)) == "adapter.value_too_large"

    def test_a_scale_is_bounded_where_no_code_uses_it(self, tmp_path: Path) -> None:
        entries = content(INT8)
        entries[codes_name(CODED)][:] = 0
        entries[scales_name(CODED)][:] = INT8.largest_scale
        (tmp_path / "a").write_bytes(save(entries))
        assert open_quantised(tmp_path / "a", CODED_LAYOUT, INT8, Constant(0.5))
        entries[scales_name(CODED)][:] = np.nextafter(INT8.largest_scale, np.float32(np.inf))
        assert rule_of(tmp_path / "a", save(entries), INT8) == "value_too_large"

    @pytest.mark.parametrize("where", ["first", "last"])
    def test_every_module_is_held_against_its_start(self, tmp_path: Path, where: str) -> None:
        """The other one already shows that the adapter contributes and changes."""
        start = RememberedStart(Constant(9990.0), 2)
        entries = content(INT8)
        small = content(INT8, scale=0.01)
        targets = CODED_LAYOUT.targets if where == "first" else CODED_LAYOUT.targets[::-1]
        big = f"base_model.model.{targets[0].module}.lora_A.weight"
        entries = small | {codes_name(big): entries[codes_name(big)]}
        entries[codes_name(big)].flat[0] = 127
        entries[scales_name(big)] = np.full_like(entries[scales_name(big)], 1.0)
        (tmp_path / "a").write_bytes(save(entries))
        source = open_quantised(tmp_path / "a", CODED_LAYOUT, INT8, start)
        with pytest.raises(UntrustedInputError) as caught:
            check_submission(source, start, PLAN.recipe)
        assert caught.value.rule == "adapter.value_too_large"

    def test_a_whole_adapter_is_read_to_its_end(self, tmp_path: Path) -> None:
        start = Constant(0.25)
        start.layout = LAYOUT
        found = tensors()
        last = NAMES[-1]
        (tmp_path / "a").write_bytes(save(found))
        check_submission(open_adapter(tmp_path / "a", LAYOUT), _Zero(), PLAN.recipe)
        found[last][-1, -1] = np.nan
        (tmp_path / "a").write_bytes(save(found))
        with pytest.raises(UntrustedInputError) as caught:
            check_submission(open_adapter(tmp_path / "a", LAYOUT), _Zero(), PLAN.recipe)
        assert caught.value.rule == "adapter.not_finite"

    @pytest.mark.parametrize("entry", [5, None, "x", [], ["dtype", "shape", "data_offsets"]])
    def test_an_entry_is_an_object(self, tmp_path: Path, entry: Any) -> None:
        header, data = parts()
        header[A_NAME] = entry
        assert whole_rule_of(tmp_path / "a", joined(header, data)) == "adapter.bad_header"

    @pytest.mark.parametrize("offsets", [[0, 47], [0, 49], [-48, 0], [0], [0, 48, 48]])
    def test_an_entry_says_where_its_bytes_are(self, tmp_path: Path, offsets: list[int]) -> None:
        header, data = parts()
        header[A_NAME]["data_offsets"] = offsets
        assert whole_rule_of(tmp_path / "a", joined(header, data)) == "adapter.bad_header"

    def test_a_header_is_as_long_as_it_says(self, tmp_path: Path) -> None:
        """The file ends with the header, which is whole, and is said to go on."""
        header, _ = parts()
        raw = joined(header, b"")
        (length,) = struct.unpack("<Q", raw[:8])
        raw = struct.pack("<Q", length + 3) + raw[8:]
        assert whole_rule_of(tmp_path / "a", raw) == "adapter.bad_header"
        assert expected_shapes(LAYOUT)


class _Zero:
    """An adapter of zeros in the layout of whole files."""

    layout = LAYOUT

    def module(self, target: Any) -> Any:
        shapes = ((LAYOUT.rank, target.in_features), (target.out_features, LAYOUT.rank))
        return tuple(np.zeros(shape, dtype=np.float32) for shape in shapes)


ROBUST = RobustSpec(tolerated_silos=0)
CENTRED = RobustSpec(tolerated_silos=0, rule="centred_clipping")
ENTRY = RobustSpec(tolerated_silos=0, rule="median", clip="none", mixing="none")
OWN = SiloLayout(silo="bank-a", rank=1, alpha=1)

PLANS: list[tuple[str, dict[str, Any]]] = [
    ("silos in cohort must be distinct", {"cohort": ("bank-a", "bank-a", "bank-b")}),
    ("each silo of the cohort exactly once", {"contracts": PLAN.contracts[:1]}),
    ("cannot exceed the cohort", {"quorum": 3}),
    ("cannot exceed the cohort", {"evaluation_quorum": 3}),
    ("expected issued_at < submit_by", {"issued_at": PLAN.submit_by}),
    ("expected issued_at < submit_by", {"submit_by": PLAN.evaluate_by}),
    ("expected issued_at < submit_by", {"expires_at": PLAN.submit_by}),
    ("each at most once", {"silo_layouts": (OWN, OWN)}),
    ("silos of the cohort", {"silo_layouts": (OWN.model_copy(update={"silo": "bank-z"}),)}),
    (
        "needs one layout for all silos",
        {
            "silo_layouts": (OWN,),
            "merge": MergeSpec(rule="average", weight_cap_tokens=1),
        },
    ),
    ("part of the run's adapter", {"silo_layouts": (OWN.model_copy(update={"rank": 3}),)}),
    ("part of the run's adapter", {"silo_layouts": (OWN.model_copy(update={"modules": ("x",)}),)}),
    (
        "what the merge rule asks for",
        {"recipe": PLAN.recipe.model_copy(update={"trained_factors": "b"})},
    ),
    (
        "a defence needs its silos",
        {"merge": MergeSpec(rule="stack_truncate", weight_cap_tokens=1, robust=ROBUST)},
    ),
    ("a starting residual goes with", {"starting_residual": ADAPTER}),
    ("a server state goes with", {"server_state": ADAPTER}),
    ("what silos train, pairs of factors", {"layout": PLAN.layout.a_alone}),
    ("what silos train, pairs of factors", {"layout": PLAN.layout.cores}),
    (
        "fed_sb goes with compression none",
        {"merge": MergeSpec(rule="fed_sb", weight_cap_tokens=1), "compression": "int8"},
    ),
]


@pytest.mark.parametrize(("said", "changes"), PLANS)
def test_a_plan_that_contradicts_itself(said: str, changes: dict[str, Any]) -> None:
    fields = {name: getattr(PLAN, name) for name in RoundPlan.model_fields}
    assert RoundPlan(**fields) == PLAN
    with pytest.raises(ValidationError, match=said):
        RoundPlan(**fields | changes)


SPECS: list[tuple[str, Callable[[], Any]]] = [
    ("hub_revision goes with", lambda: _base(hub_revision="0" * 40)),
    ("take clip none", lambda: RobustSpec(tolerated_silos=0, rule="median", clip="none")),
    ("take clip none", lambda: RobustSpec(tolerated_silos=0, rule="median", mixing="none")),
    ("residual_rank goes with", lambda: _spec(residual_rank=4)),
    ("residual_rank goes with", lambda: _spec(rule="residual")),
    ("under which a factor is shared", lambda: _spec(robust=ENTRY)),
    ("merges products or B alone", lambda: _spec(rule="average", robust=ROBUST)),
    ("it needs stack_truncate", lambda: _spec(rule="zero_pad", optimizer=HeavyBall())),
    ("sketch_width goes with", lambda: _spec(sketch_width=8)),
    ("it needs fedavg", lambda: _spec(robust=CENTRED, optimizer=HeavyBall())),
    ("they need stack_truncate", lambda: _spec(rule="zero_pad", rank_weights="trained")),
]


def _base(**fields: Any) -> BaseModelRef:
    return BaseModelRef(name="tiny", digest="0" * 64, licence="MIT", **fields)


def _spec(**fields: Any) -> MergeSpec:
    whole: dict[str, Any] = {"rule": "stack_truncate", "weight_cap_tokens": 1} | fields
    return MergeSpec(**whole)


@pytest.mark.parametrize(("said", "make"), SPECS)
def test_a_spec_that_contradicts_itself(said: str, make: Callable[[], Any]) -> None:
    with pytest.raises(ValidationError, match=said):
        make()
    assert _base(hub_id="a/b", hub_revision="0" * 40)
    assert _spec(optimizer=FedExP(max_step=Decimal(2)), rank_weights="trained")


assert isinstance(MEMBERSHIP, Membership)
MEMBERSHIPS: list[tuple[str, dict[str, Any]]] = [
    ("must be distinct", {"root_keys": (KEYS[1].public_key_hex,) * 2}),
    ("larger than the number of root_keys", {"root_threshold": 16}),
    ("silos and keys must be distinct", {"silos": (*MEMBERSHIP.silos, MEMBERSHIP.silos[0])}),
    (
        "silos and keys must be distinct",
        {
            "silos": (
                *MEMBERSHIP.silos,
                MEMBERSHIP.silos[0].model_copy(update={"public_key": KEYS[7].public_key_hex}),
            )
        },
    ),
    ("silos and keys must be distinct", {"coordinator_key": MEMBERSHIP.silos[0].public_key}),
    ("no other, has no previous_digest", {"previous_digest": "0" * 64}),
    ("names every version before", {"number": 2, "previous_digest": "0" * 64}),
    ("is that of the entry after_feed_number", {"after_feed_digest": "0" * 64}),
    ("follows nothing", {"after_feed_number": 1, "after_feed_digest": "0" * 64}),
]


@pytest.mark.parametrize(("said", "changes"), MEMBERSHIPS)
def test_a_membership_that_contradicts_itself(said: str, changes: dict[str, Any]) -> None:
    fields = {name: getattr(MEMBERSHIP, name) for name in Membership.model_fields}
    assert fields["number"] == 1
    with pytest.raises(ValidationError, match=said):
        Membership(**fields | changes)


def test_institutions_are_told_apart_by_name() -> None:
    fields = {name: getattr(MEMBERSHIP, name) for name in Membership.model_fields}
    one: Member = fields["silos"][0]
    other = one.model_copy(
        update={"silo": "bank-y", "public_key": KEYS[7].public_key_hex, "name": "The BANK"}
    )
    named = one.model_copy(update={"name": "The Bank"})
    with pytest.raises(ValidationError, match="names of institutions must be distinct"):
        Membership(**fields | {"silos": (named, other)})


def test_a_membership_of_many_years_names_the_last_thousand() -> None:
    fields = {name: getattr(MEMBERSHIP, name) for name in Membership.model_fields}
    earlier = tuple(EarlierMembership(digest=f"{n:064x}", after_feed_number=0) for n in range(1000))
    changes = {"number": 1002, "earlier": earlier, "previous_digest": earlier[0].digest}
    assert len(Membership(**fields | changes).earlier) == 1000
    with pytest.raises(ValidationError, match="names every version before"):
        Membership(**fields | changes | {"earlier": earlier[:999]})


def test_a_layout_names_each_module_once() -> None:
    fields = {name: getattr(PLAN.layout, name) for name in AdapterLayout.model_fields}
    with pytest.raises(ValidationError, match="modules in targets must be distinct"):
        AdapterLayout(**fields | {"targets": PLAN.layout.targets * 2})


def test_a_silo_trains_the_modules_of_its_own_layout_alone() -> None:
    first = PLAN.layout.targets[0]
    second = first.model_copy(update={"module": "model.down"})
    layout = PLAN.layout.model_copy(update={"targets": (first, second)})
    own = OWN.model_copy(update={"modules": ("model.down",)})
    plan = PLAN.model_copy(update={"layout": layout, "silo_layouts": (own,)})
    assert plan.layout_of("bank-a").targets == (second,)
    assert plan.layout_of("bank-b").targets == (first, second)
