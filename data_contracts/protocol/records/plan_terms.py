"""What a plan says beside the training: who counts, by which contract, published and kept how."""

from typing import Annotated, Literal

from pydantic import Field

from data_contracts.protocol.wire_types import (
    DecimalString,
    Digest,
    Line,
    Part,
    PositiveCount,
    Recipient,
    SiloId,
)


class PublicationRule(Part):
    """A candidate is published only if mean and every silo's held-out loss stay within these.

    Both are in nats per token, relative to the starting adapter; zero means "not worse".
    `name_silos`: what is published names the silos and gives the losses of each, to whoever has it.
    """

    max_mean_increase: DecimalString
    max_silo_increase: DecimalString
    name_silos: bool = False


class Retention(Part):
    """How long what the attempt rests on stays locked, and whether anybody can remove it earlier.

    "governance": a person with that right at the storage, for an erasure; "compliance": nobody.
    Days are counted from `evaluate_by`, or from the day on which it is locked where that is later.
    """

    mode: Literal["governance", "compliance"] = "governance"
    days: Annotated[int, Field(ge=1, le=36_500)] = 365


class AdapterEncryption(Part):
    """Adapters lie in storage as age files (https://age-encryption.org/v1).

    A silo encrypts its own so that it takes two to open it: the identity of this attempt alone
    (`round_recipient`), and the coordinator's, as the plan's membership names it. The coordinator
    encrypts its own to the cohort and itself.
    """

    method: Literal["age"] = "age"
    round_recipient: Recipient
    coordinator_recipient: Recipient


class ErasureRef(Part):
    """An erasure of the feed, by number and digest."""

    feed_number: PositiveCount
    digest: Digest


class ReplayOf(Part):
    """The plan is the one of an earlier round once more, as the erasure `erasure_digest` asks for:
    the same training and merge, without the silo that was taken out."""

    erasure_digest: Digest
    plan_digest: Digest


class ContractPin(Part):
    """The contract, by digest, under which a silo is asked to take part."""

    silo: SiloId
    contract_digest: Digest


class CountedCopy(Part):
    """A silo whose change counts although another's is the same: who decided that, and why."""

    silo: SiloId
    decision: Line
