"""Readiness of what is signed and decided: keys, membership, contract, signatures, policy."""

from pathlib import Path

from data_contracts.dataset.contract import DataContract
from data_contracts.dataset.contract.agreement import agreement_path, read_agreement
from data_contracts.errors import ConsortiaError
from data_contracts.licences.duo import judge_duo
from data_contracts.protocol.dsse import fingerprint
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.program_version import is_later, program_version
from data_contracts.protocol.records import Membership, RoundPlan
from infra.signing_keys import SigningKey
from infra.terminal import command_line
from silo_agent.config import CONFIG_NAME
from silo_agent.first_day.next_steps import hand_over_command, lint_command, sign_command
from silo_agent.gate.contract_gate import MIN_KEY_BYTES
from silo_agent.policy.contract_terms import ContractTerms
from silo_agent.policy.plan_context import PlanContext
from silo_agent.policy.policy_file import Policy
from silo_agent.policy.privacy_rules import STAGE
from silo_agent.policy.rules import judge_plan
from silo_agent.readiness.checklist import Item, days_left, missing, of_fault, there, tried, wrong
from silo_agent.readiness.facts import Facts
from silo_agent.readiness.known_silos import known_silos
from silo_agent.readiness.privacy import privacy
from silo_agent.release.kill_switch import KillSwitch
from silo_agent.training.capacity import lacks
from silo_agent.training.private_stage import is_private_stage


def papers(facts: Facts) -> list[Item]:
    """Everything but machine, model and data, in the order in which a silo operator meets it."""
    return [
        _configuration(facts),
        _version(facts),
        _keys(facts),
        _membership(facts),
        *_recipient(facts),
        _credential(facts),
        *_storage(facts),
        _contract(facts),
        _agreement(facts),
        _policy(facts),
        _purpose(facts),
        *known_silos(facts),
        *privacy(facts),
        *_plan(facts),
        *_kill_switch(facts),
    ]


def _configuration(facts: Facts) -> Item:
    config = facts.config
    return there(
        "configuration", f"{config.silo} in {config.federation}, {config.home / CONFIG_NAME}"
    )


def _version(facts: Facts) -> Item:
    """This agent's, beside the one that made the newest plan."""
    own, plan = program_version(), facts.plan
    if plan is None or plan.program in (None, own):
        return there("version", own)
    detail = f"{own}; the newest plan was made by {plan.program}"
    later = is_later(plan.program or "", own)
    step = f"upgrade to {plan.program} between two rounds" if later else "see docs/upgrade.md"
    return Item("version", "warning", detail, step)


def _keys(facts: Facts) -> Item:
    if not isinstance(facts.key, SigningKey):
        return of_fault("keys", facts.key)
    findings = facts.config.path(facts.config.keys.findings)
    if _size(findings) < MIN_KEY_BYTES:
        detail = f"{findings}: expected {MIN_KEY_BYTES} secret bytes; found {_size(findings)}"
        return wrong("keys", detail, "restore it from its backup")
    return there("keys", f"fingerprint {fingerprint(facts.key.public_key_hex)}")


def _membership(facts: Facts) -> Item:
    path = facts.config.path(facts.config.trust.membership)
    if not path.exists():
        return missing("membership", path, hand_over_command(facts.config))
    if not isinstance(facts.pinned, Verified):
        return of_fault("membership", facts.pinned)
    if isinstance(facts.feed, ConsortiaError):
        return of_fault("membership", facts.feed)
    return _named(facts, facts.membership or facts.pinned.record)


def _named(facts: Facts, membership: Membership) -> Item:
    """Whether the newest membership is of this federation and names this silo with its key."""
    name, config = "membership", facts.config
    if membership.federation != config.federation:
        detail = f"of {membership.federation}; expected {config.federation}"
        return wrong(name, detail, "ask the federation operator for the right one")
    named = membership.key_of(config.silo)
    if named is None or (isinstance(facts.key, SigningKey) and named != facts.key.public_key_hex):
        found = "no such silo" if named is None else "another key"
        detail = f"number {membership.number} names {found} for {config.silo}"
        return wrong(name, detail, "send the federation operator the key of `silo-agent key`")
    if facts.now >= membership.expires_at:
        detail = f"number {membership.number} expired on {membership.expires_at:%Y-%m-%d}"
        return wrong(name, detail, "ask the federation operator to renew it")
    left = days_left(membership.expires_at, facts.now)
    coordinator = fingerprint(membership.coordinator_key)
    detail = f"number {membership.number}, {left}; coordinator {coordinator}"
    if membership.expires_soon(facts.now):
        return Item(name, "warning", detail, "ask the federation operator to renew it")
    return there(name, detail)


def _recipient(facts: Facts) -> list[Item]:
    """Whether what is encrypted for this silo can be read here; nothing where nobody encrypts."""
    name, membership = "recipient", facts.membership
    named = membership.recipient_of(facts.config.silo) if membership is not None else None
    if membership is None or (named is None and membership.coordinator_recipient is None):
        return []
    if isinstance(facts.identities, ConsortiaError):
        return [of_fault(name, facts.identities)]
    step = "send the federation operator what `silo-agent key --recipient` prints"
    if named is None:
        detail = f"number {membership.number} names none: no plan encrypts to this silo"
        return [Item(name, "warning", detail, step)]
    if named not in facts.recipients:
        return [wrong(name, f"no identity here is that of {named}", f"restore it, or {step}")]
    return [there(name, named)]


def _credential(facts: Facts) -> Item:
    storage = facts.config.storage
    path, is_file = facts.config.path(storage.credentials), storage.credential_source == "file"
    if is_file and not path.exists():
        return missing("credential", path, hand_over_command(facts.config))
    if isinstance(facts.credential, ConsortiaError):
        return of_fault("credential", facts.credential)
    return there("credential", str(path) if is_file else facts.credential.asked_as)


def _storage(facts: Facts) -> list[Item]:
    if facts.promises is None:
        return [Item("storage", "not checked", facts.config.storage.endpoint_url)]
    if isinstance(facts.promises, ConsortiaError):
        return [of_fault("storage", facts.promises)]
    return [there("storage", f"{facts.promises} keeps every promise that the agent relies on")]


def _contract(facts: Facts) -> Item:
    path = facts.config.path(facts.config.data.contract)
    if not path.exists():
        return missing("contract", path, lint_command(facts.config))
    contract = facts.contract
    if isinstance(contract, ConsortiaError):
        return of_fault("contract", contract)
    if not contract.is_current(facts.now):
        detail = f"{contract.id} {contract.version} expired on {contract.terms.expires:%Y-%m-%d}"
        return wrong(
            "contract", detail, f"renew it: edit {path}, and have both sides sign it again"
        )
    left = days_left(contract.terms.expires, facts.now)
    return there("contract", f"{contract.id} {contract.version}, {left}")


def _agreement(facts: Facts) -> Item:
    name, parties = "signatures", facts.parties
    path = facts.config.path(facts.config.data.contract)
    if isinstance(facts.contract, ConsortiaError) or parties is None:
        lacks = "a membership" if parties is None else "a contract that can be read"
        return Item(name, "not checked", f"they need {lacks}")
    if not agreement_path(path).exists():
        return missing(name, agreement_path(path), sign_command(facts.config))
    digest = facts.contract.digest
    agreed = tried(lambda: read_agreement(path, digest, parties))
    if isinstance(agreed, ConsortiaError):
        detail = f"expected {agreed.expected}; found {agreed.found}"
        return Item(name, "wrong", detail, sign_command(facts.config), is_command=True)
    return there(name, "silo and coordinator have signed these very bytes")


def _policy(facts: Facts) -> Item:
    path, policy = facts.config.path(facts.config.policy), facts.policy.policy
    if policy is None:
        found = facts.policy.problem or "nothing"
        return wrong("policy", found, f"correct {path}; until then every plan is refused")
    unset = [line for line, is_set in _decisions(policy, _may_encrypt(facts)) if not is_set]
    if unset:
        return wrong("policy", f"without {' and '.join(unset)}", f"read {path}, then set that")
    return there("policy", f"takes part, {path}")


def _may_encrypt(facts: Facts) -> bool:
    """Whether the membership has what plans need that encrypt adapters."""
    membership = facts.membership
    if membership is None or membership.coordinator_recipient is None:
        return False
    return membership.recipient_of(facts.config.silo) is not None


def _decisions(policy: Policy, may_encrypt: bool) -> list[tuple[str, bool]]:
    return [
        ("take_part = true", policy.take_part),
        (
            "trust_storage_with_deltas = true",
            policy.trust_storage_with_deltas
            or may_encrypt
            or policy.trust_modes == ("confidential",),
        ),
    ]


def _purpose(facts: Facts) -> Item:
    name, policy, contract = "purpose", facts.policy.policy, facts.contract
    if policy is None or isinstance(contract, ConsortiaError):
        return Item(name, "not checked", "it needs a policy and a contract that can be read")
    both = [purpose for purpose in contract.purposes if purpose in policy.purposes]
    path = facts.config.path(facts.config.data.contract)
    if not both:
        detail = f"contract: {'; '.join(contract.purposes)}. Policy: {'; '.join(policy.purposes)}"
        return wrong(name, detail, f"make one the same, word for word, in {path} or the policy")
    uses, refused = contract.terms.uses, _refused_uses(contract)
    if set(refused) == set(uses):
        return wrong(
            name, "; ".join(refused.values()), f"correct fl.uses and fl.duoCodes in {path}"
        )
    if "local-adapter" not in contract.terms.egress.allow:
        return wrong(name, "the contract lets no adapter out", f"see fl.egress in {path}")
    return there(name, f"{'; '.join(both)}, for {', '.join(u for u in uses if u not in refused)}")


def _refused_uses(contract: DataContract) -> dict[str, str]:
    terms = contract.terms
    reasons = {use: judge_duo(terms.duo_codes, use, terms.attested()) for use in terms.uses}
    return {use: f"{use} use refused by {why}" for use, why in reasons.items() if why is not None}


def _plan(facts: Facts) -> list[Item]:
    """How the policy judges the newest plan, where it is one that this silo is still asked by."""
    plan, membership = facts.plan, facts.membership
    if plan is None or membership is None or facts.now >= plan.submit_by:
        return []
    if facts.config.silo not in plan.cohort:
        return []
    signed = isinstance(facts.contract, DataContract) and _agreement(facts).state == "there"
    terms = ContractTerms.of(facts.contract) if isinstance(facts.contract, DataContract) else None
    context = PlanContext(
        silo=facts.config.silo,
        federation=facts.config.federation,
        membership=membership,
        contract=terms if signed else None,
        now=facts.now,
        lacks=lacks(plan, facts.policy, facts.config),
        recipients=facts.recipients,
        objections=_objections(plan, facts),
        erasures=facts.erasures,
    )
    refusal, name = judge_plan(plan, facts.policy, context), f"round {plan.round}"
    if refusal is None:
        return [there(name, "its plan is one that the policy accepts")]
    return [wrong(name, f"{refusal.rule}: {refusal.reason}", "correct what the rule names")]


def _objections(plan: RoundPlan, facts: Facts) -> frozenset[str]:
    """Of the settings alone; what the ledger says is an item of its own."""
    is_off = plan.privacy is not None and not is_private_stage(facts.config.training)
    return frozenset({STAGE.rule}) if is_off else frozenset()


def _kill_switch(facts: Facts) -> list[Item]:
    home = facts.config.home
    if not KillSwitch(home).is_on():
        return []
    clear = command_line("silo-agent", "run", "--clear-stop", "--home", home)
    return [Item("kill switch", "wrong", f"{home / 'STOP'} is there", clear, is_command=True)]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
