"""Made rounds: plans, who counted, and what came of them, without any storage."""

from typing import Any

from aggregator.unlearning.erasure_plan import Asked
from aggregator.unlearning.past_round import Outcome, PastRound, Work
from data_contracts.protocol.artifact import ArtifactRef, digest_of_bytes
from data_contracts.protocol.records import Membership
from data_contracts.protocol.records.membership import Member
from data_contracts.protocol.records.plan_terms import ContractPin
from tests.infra.record_samples import membership, new_key, plan

WORK = Work(steps=5, tokens=100)
MODEL = "e" * 64


def adapter(name: str) -> ArtifactRef:
    """Of a round, by its name."""
    return ArtifactRef(digest=digest_of_bytes(name.encode()), size=len(name))


def past(
    number: int,
    start: str | None,
    counted: str,
    outcome: Outcome = "published",
    cohort: str | None = None,
    **changes: Any,
) -> PastRound:
    """Round `number`, in which the silos of the letters `counted` counted, out of `cohort`; it
    makes an adapter of its run's and its own name."""
    asked = tuple(f"silo-{letter}" for letter in cohort or counted)
    run = changes.get("run", "run-a")
    pins = tuple(ContractPin(silo=silo, contract_digest="d" * 64) for silo in asked)
    begun = None if start is None else adapter(start)
    planned = plan(
        changes.pop("entry", number),
        None,
        round=number,
        cohort=asked,
        contracts=pins,
        starting_adapter=begun,
        **changes,
    )
    work = {f"silo-{letter}": WORK for letter in counted}
    made = (adapter(f"{run}/{number}"),) if outcome == "published" else ()
    return PastRound(planned, outcome, work, made)


def members(letters: str) -> Membership:
    """A membership of the silos of these letters."""
    silos = tuple(Member(silo=f"silo-{s}", public_key=new_key().public_key_hex) for s in letters)
    return membership(silos=silos).record


def asked(silo: str = "silo-x", letters: str = "ab", **changes: Any) -> Asked:
    """For a federation of which `letters` are members now, and whose storage keeps everything."""
    fields: dict[str, Any] = {
        "silo": silo,
        "run": "run-a",
        "membership": members(letters),
        "model_digest": MODEL,
        "is_kept": lambda ref: True,
    }
    return Asked(**fields | changes)
