"""Guards that can be deleted alone, because another does the same: which, and why both stay.

A row counts only where deleting it together with the others is noticed. Below it is what looks like
a guard in the syntax and is none: deleting it lets nothing through.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Redundant:
    """What does the same, by name, and the reason for having both."""

    others: tuple[str, ...]
    reason: str


_LEDGER = "aggregator/evidence/ledger.py"
_READER = "aggregator/evidence/reader.py"
_PAYLOAD = "data_contracts/protocol/payload.py"
_CHAIN = "data_contracts/protocol/membership_chain.py"
_RULES = "silo_agent/policy/rules.py"
_RELEASE = "silo_agent/release/release.py"
_SPELLING = (
    f"{_PAYLOAD}::_validated::canonical_bytes(record) != payload",
    f"{_PAYLOAD}::_validated::table_bytes(record) != table",
)

REDUNDANT: dict[str, Redundant] = {
    f"{_PAYLOAD}::record_of::len(payload) > record_type.max_payload_bytes": Redundant(
        ("data_contracts/protocol/strict_json.py::parse_strict::len(data) > max_bytes",),
        "a payload is measured before it is looked up among those that are remembered",
    ),
    f"{_PAYLOAD}::_record_with_table::"
    "require_canonical(payload, record_type.max_payload_bytes, 'payload')": Redundant(
        _SPELLING[:1],
        "says that the bytes are at fault, before the schema is asked",
    ),
    _SPELLING[1]: Redundant(
        _SPELLING[:1],
        "the payload names the table by its digest, and so has another spelling itself",
    ),
    f"{_PAYLOAD}::_record_with_table::set(rows) != set(record_type.table_fields)": Redundant(
        _SPELLING,
        "says which lists a table has, before they are put into the payload",
    ),
    "aggregator/decisions/carried_agreement.py::carried_agreement::"
    "acceptance.agreement is None": Redundant(
        ("data_contracts/protocol/dsse.py::from_base64::data is None",),
        "no agreement is no fault of its spelling",
    ),
    f"{_LEDGER}::held_records::ref.silo is None": Redundant(
        (f"{_LEDGER}::held_records::ref.silo not in keys",),
        "the types are told that a silo's reference names it",
    ),
    f"{_READER}::read_status::key is None": Redundant(
        ("infra/records/seen.py::SeenStatuses.read::keys",),
        "no key signs nothing, and so nothing is listed for one",
    ),
    f"{_LEDGER}::_lock::version is None": Redundant(
        (f"{_LEDGER}::_holds::stored is not None",),
        "what is gone is not looked for again",
    ),
    f"{_CHAIN}::_succession::new.previous_digest == current.digest": Redundant(
        (f"{_CHAIN}::_succession::new.earlier == earlier_after(current)",),
        "the list of earlier versions is cut after a thousand, and begins with this one",
    ),
    **{
        f"{_RULES}::::c.contract is not None #{number}": Redundant(
            (f"{_RULES}::::c.contract is not None",),
            "each rule stands by itself, and an earlier one has refused already",
        )
        for number in range(2, 7)
    },
    "silo_agent/policy/plan_questions.py::model_licence_allowed::model is None": Redundant(
        ("silo_agent/policy/plan_questions.py::base_model_allowed::model is not None",),
        "the rule stands by itself, and the one about the base model has refused already",
    ),
    f"{_RELEASE}::PlanRelease.require_open::contract is None": Redundant(
        ("silo_agent/release/doors.py::objection::contract is None",),
        "a door that forgot to ask for a contract would let out without one",
    ),
    f"{_RELEASE}::PlanRelease.record::self.release._require_running(record.kind)": Redundant(
        (f"{_RELEASE}::Release._send::self._require_running(record.kind)",),
        "nothing is signed while the kill switch is on; nothing leaves, whoever signed it",
    ),
}

NO_GUARDS: dict[str, str] = {
    "aggregator/arrivals.py::Arrivals.keep_sketch::other[0] != key[0]": "what is kept in memory",
    "data_contracts/protocol/membership_chain.py::MembershipChain.silo_key::key is None": "None "
    "stays None",
    "aggregator/arrivals.py::Arrivals.gated::key in self._passed": "what passed is not read twice",
    "aggregator/decisions/carried_agreement.py::carried_agreement::pinned is None": "an agreement "
    "names a digest, which None is not",
    "aggregator/decisions/interruption.py::_erased::ref.silo": "what a close holds is a silo's",
    "data_contracts/adapters/submission_gate.py::check_submission::"
    "changes and (recipe.trained_factors == 'both' or target.whole is not None)": "the start is "
    "not read where nothing follows",
    "data_contracts/adapters/quantised_format.py::QuantisedFile.check::"
    "changes and contributes and self.checked(target).is_within": "codes say enough, and nothing "
    "is decoded",
    "infra/records/feed_reach.py::_signer::silo": "words",
    "silo_agent/agent.py::_train_or_evaluate::"
    "compare_with_close(silo, attempt.done, close.record)": "it tells, and refuses nothing",
    "silo_agent/steps/check.py::check_data::not o.success": "words",
    "silo_agent/release/release.py::Release.read_back::isinstance(v.record, SiloRecord)": "what "
    "the types are told",
    "silo_agent/federation/marks.py::forget_clock::mark": "what is told of a mark that goes",
    "silo_agent/release/doors.py::refusal_for::isinstance(error, CheckDiedError)": "which refusal",
}
