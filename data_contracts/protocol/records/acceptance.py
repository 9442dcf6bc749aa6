"""A silo's answer to a plan: take part, or refuse and name the deciding rule."""

from typing import ClassVar

from data_contracts.protocol.records.round_record import SiloRecord
from data_contracts.protocol.wire_types import Digest, Line, ProgramVersion, RuleId, SignedText


class Acceptance(SiloRecord):
    """The silo's policy allows the plan.

    `shares_individual_delta`: its owner lets the other silos see its adapter alone, so that they
    can measure what each silo contributed. `agreement` is the envelope of the `ContractAgreement`,
    with both signatures, that the silo takes part under. `program` is the version of the agent.
    """

    kind: ClassVar[str] = "acceptance"
    added_fields: ClassVar[tuple[str, ...]] = ("program",)

    policy_digest: Digest
    shares_individual_delta: bool = False
    agreement: SignedText | None = None
    program: ProgramVersion | None = None


class Refusal(SiloRecord):
    """The silo does not take part. `rule` decided; `reason` is a fixed sentence of that
    rule, which two numbers follow where the machine cannot do it: of memory, steps or processes."""

    kind: ClassVar[str] = "refusal"
    added_fields: ClassVar[tuple[str, ...]] = ("program",)

    policy_digest: Digest | None
    rule: RuleId
    reason: Line
    program: ProgramVersion | None = None
