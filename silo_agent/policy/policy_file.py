"""The policy file: what a person at the silo has written down that the silo is willing to do.

It fails closed: an empty, unreadable or unset policy is none, and refuses everything.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records.round_plan import TrustMode
from data_contracts.protocol.wire_types import Digest, LicenceId, PositiveCount, SiloId, Text
from infra.disk.toml_files import TomlTable, parse_toml, read_limited, setting_fault
from silo_agent.policy.leak_check import LeakCheck

MAX_POLICY_BYTES = 64 * 1024
ANY_KEY = "any key"
"""Of a known silo: whichever the root keys of the federation have signed for it."""


class AllowedModel(TomlTable):
    """A base model that may be trained here: by digest, at a local path, under its licence.

    `licence_acceptance` names who at this silo accepted terms that ask for it, as in
    "LicenseRef-Gemma-Terms accepted by A. Person".
    """

    name: Text
    digest: Digest
    licence: LicenceId
    path: Path
    licence_acceptance: Text | None = None


class Limits(TomlTable):
    """Caps on what a plan may ask. All are inclusive; a missing cap is an unreadable policy.

    `min_summed_silos`: of how many silos' changes a sum has to be in confidential mode, which
    needs it: a plan asks for more than two thirds of its cohort, which the coordinator picks.
    `min_known_silos`: how many of the policy's `known_silos` there have to be in such a sum besides
    this one.
    `max_sums_per_start`: how many sums it helps to open that start from the same adapter; None: any
    number, as after a round that was held.
    Rank and bytes are of what this silo trains and releases: its own layout where the plan gives
    it one. The run's adapter, which it only evaluates, may be larger.
    """

    max_local_steps: PositiveCount
    max_sequences_per_step: PositiveCount
    max_sequence_length: PositiveCount
    max_learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    max_rank: PositiveCount
    max_adapter_bytes: PositiveCount
    min_cohort_silos: PositiveCount
    max_retention_days: PositiveCount
    min_summed_silos: PositiveCount | None = None
    min_known_silos: PositiveCount | None = None
    max_sums_per_start: PositiveCount | None = None


def _a_fingerprint(value: object) -> object:
    """Without the spaces that people read it in."""
    if not isinstance(value, str) or value == ANY_KEY:
        return value
    digits = "".join(value.split()).lower()
    if re.fullmatch("[0-9a-f]{64}", digits) is None:
        raise ValueError(f'expected the fingerprint of a key, 64 hex digits, or "{ANY_KEY}"')
    return digits


KnownKey = Annotated[str, BeforeValidator(_a_fingerprint)]


class PrivacyRules(TomlTable):
    """`required`: plans without differential privacy are refused, whatever the contract says."""

    required: bool = False


class Policy(TomlTable):
    """The policy file. `trust_storage_with_deltas` must be true for plans that do not encrypt.

    `share_individual_delta` lets the other silos read this silo's adapter by itself.
    `compliance_retention` allows plans under which nobody, for no reason, can erase what this silo
    sent before the plan's time is over. `may_be_named` allows plans under which what is published
    names this silo and gives its held-out losses, to whoever has it. `show_memory` lets a status
    say how much memory ranks hold; coordinators of a release without that field cannot read it.
    `known_silos`: partners by the name that the membership has for them, each with the fingerprint
    of its key as a person here has compared it, or for any key that the root keys have signed.
    """

    version: Literal[1]
    take_part: bool
    purposes: Annotated[tuple[Text, ...], Field(min_length=1)]
    trust_modes: Annotated[tuple[TrustMode, ...], Field(min_length=1)]
    trust_storage_with_deltas: bool
    share_individual_delta: bool = False
    compliance_retention: bool = False
    may_be_named: bool = False
    show_memory: bool = False
    privacy: PrivacyRules = PrivacyRules()
    limits: Limits
    known_silos: dict[SiloId, KnownKey] = Field(default_factory=dict)
    leak_check: LeakCheck = LeakCheck()
    models: Annotated[tuple[AllowedModel, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _says_what_a_sum_is(self) -> Self:
        if "confidential" in self.trust_modes and self.limits.min_summed_silos is None:
            raise ValueError("confidential mode needs limits.min_summed_silos")
        return self

    @model_validator(mode="after")
    def _says_how_many_it_knows(self) -> Self:
        least, known = self.limits.min_known_silos, len(self.known_silos)
        if (least is None) != (known == 0):
            raise ValueError("known_silos and limits.min_known_silos go together")
        if least is not None and least > known:
            raise ValueError(f"limits.min_known_silos of at most {known}, the known_silos")
        return self

    def model(self, digest: str) -> AllowedModel | None:
        """The allowed model with this digest."""
        return next((m for m in self.models if m.digest == digest), None)


@dataclass(frozen=True)
class PolicyFile:
    """A policy with the digest of its bytes, or the reason why there is none."""

    policy: Policy | None
    digest: str | None
    problem: str | None

    @property
    def leak_check(self) -> LeakCheck:
        """Its limits; those of a policy that says nothing of them where it cannot be read."""
        return LeakCheck() if self.policy is None else self.policy.leak_check


def read_policy(path: Path) -> PolicyFile:
    """Read the policy file; a fault becomes a `PolicyFile` without a policy, never an exception."""
    try:
        data = read_limited(path, MAX_POLICY_BYTES)
    except OSError as error:
        return PolicyFile(None, None, f"{path}: {error.strerror}")
    digest = hashlib.sha256(data).hexdigest()
    if len(data) > MAX_POLICY_BYTES:
        return PolicyFile(None, digest, f"{path}: larger than {MAX_POLICY_BYTES} bytes")
    try:
        return PolicyFile(Policy.model_validate(parse_toml(data)), digest, None)
    except ValidationError as error:
        where, expected, found = setting_fault(error)
        return PolicyFile(None, digest, f"{path}: {where}: expected {expected}; found {found}")
    except ValueError as error:
        return PolicyFile(None, digest, f"{path}: {error}")


def require_policy(file: PolicyFile) -> Policy:
    """The policy, or SiloOperatorError; for commands a person runs, not for rounds."""
    if file.policy is None:
        raise SiloOperatorError(
            "policy",
            expected="a readable policy file with every limit set",
            found=file.problem or "nothing",
            action="correct the policy; until then the agent refuses every plan",
        )
    return file.policy
