"""Simulated silos: the real agent code around a simulated trainer and data gate.

The agent, its policy, release and feed are the product's own; only what would need GPUs and
records is simulated. A silo can be told to misbehave.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from data_contracts.adapters.adapter_format import expected_shapes, named_tensors, open_adapter
from data_contracts.adapters.core_bases import UnmovedCores
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter, narrowed
from data_contracts.dataset.suite.required_rules import REQUIRED_RULES
from data_contracts.errors import ConsortiaError, SiloOperatorError
from data_contracts.protocol.artifact import artifact_of_file, digest_of_bytes
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Membership, RoundPlan, Verdict
from data_contracts.protocol.records.verdict import LicenceCount, RuleOutcome
from infra.disk.durable_files import write_durably
from infra.encryption.identities import load_identities
from infra.records.feed_reader import FeedReader
from infra.signing_keys import SigningKey
from infra.storage.config import StorageSection
from infra.storage.object_store import Bucket
from silo_agent.agent import poll_once
from silo_agent.collaborators import (
    EvaluatedAdapters,
    GlobalAdapter,
    HeldoutLosses,
    PersonalWork,
)
from silo_agent.config import AgentSection, SiloConfig, TrainingSection
from silo_agent.gate.outcome import GateOutcome
from silo_agent.leaks.figures import LeakFigures
from silo_agent.metrics.readings import Readings
from silo_agent.personal_settings import PersonalSection
from silo_agent.policy.in_force import InForce
from silo_agent.policy.policy_file import read_policy
from silo_agent.privacy.ledger import PrivacyLedger
from silo_agent.release.kill_switch import KillSwitch
from silo_agent.release.outbox import Outbox
from silo_agent.release.release import Release
from silo_agent.release.status_reporter import StatusReporter
from silo_agent.silo import Silo
from silo_agent.steps.own_attempt import Step
from silo_agent.training.job import TrainingJob
from silo_agent.training.jobs import SILO_ONLY
from silo_agent.training.loss import Loss
from silo_agent.training.own_steps import own_recipe
from silo_agent.training.personal_part import PersonalMeasures
from silo_agent.training.results import PackingCounts, TrainingResult
from silo_agent.training.run_files import RunFiles
from tests.simulator.contract import SimulatedContract
from tests.simulator.fake_clock import FakeClock
from tests.simulator.leaks import FEW_LEAKS

BASE_LOSS, LOWEST_LOSS = 3.0, 0.5
SPEED = Readings(tokens_per_second=100.0)
HELDOUT_RECORDS = 20
CHECKPOINT_BYTES = 30_000
PERSONAL_FACTOR = np.float32(0.5)
CHANGE_ERROR = 0.02
"""Standard error of a change of the loss in nats per token."""

FINDINGS = digest_of_bytes(b"findings")


class Behaviour(Enum):
    """How a simulated silo acts."""

    HONEST = "honest"
    ABSENT = "absent"
    FAILING_CONTRACT = "its data contract fails"
    INCOMPLETE_VERDICT = "asks no question about personal data"
    NOT_FINITE = "submits NaN"
    HUGE = "submits finite but absurd values"
    ZERO_DELTA = "submits the adapter it started from"
    COPYING = "submits what silo-a does"
    REWRITING = "submits what silo-a does, in other factors, with a little noise"
    MIRRORED = "submits minus what silo-a does"
    THAWED = "moves A although the plan trains B alone"
    LOUD = "submits an adapter a hundred times too large"
    BOASTING = "claims a billion tokens"
    HASTY = "does one step and says so"
    SILENT_EVALUATOR = "never evaluates"
    UNHAPPY = "finds the candidate worse"


BORROWING = frozenset({Behaviour.COPYING, Behaviour.REWRITING, Behaviour.MIRRORED})


@dataclass
class SimulatedTrainer:
    """Draws an adapter from the silo's name and the round; satisfies `Trainer`."""

    silo: str
    directory: Path
    behaviour: Behaviour
    while_training: Callable[[], None]
    asked: Counter[str] = field(default_factory=Counter, kw_only=True)
    training: TrainingSection = field(default_factory=TrainingSection, init=False)
    leaks: LeakFigures | None = field(default=FEW_LEAKS, init=False)
    while_personal: Callable[[], None] = field(default=lambda: None, init=False)
    secrets: list[bytes | None] = field(default_factory=list, init=False)

    def train(
        self,
        plan: RoundPlan,
        verdict: Verdict,
        starting: GlobalAdapter,
        report: StatusReporter,
    ) -> TrainingResult:
        """A random adapter of the silo's layout; deterministic per silo and round.

        What lies beside it is what the real trainer leaves: checkpoints, log, silo-only adapter.
        """
        recipe = own_recipe(plan.recipe, self.training)
        report.show("training", step=1, steps=recipe.local_steps, readings=SPEED)
        files = RunFiles(self.directory / plan.run / f"round-{plan.round:04d}")
        files.prepare()
        path = files.adapter
        path.unlink(missing_ok=True)
        save_file(self._tensors(plan, starting.path), path)
        self._leave(plan, files)
        self.secrets.append(_secret_of(self.directory.parent, plan, verdict))
        self.while_training()
        boasting = self.behaviour is Behaviour.BOASTING
        hasty = self.behaviour is Behaviour.HASTY
        return TrainingResult(
            adapter=path,
            tokens=10**9 if boasting else recipe.tokens_per_round,
            steps=1 if hasty else recipe.local_steps,
            resumed_from_step=0,
            first_step_loss=BASE_LOSS,
            last_step_loss=BASE_LOSS - 0.5,
            seconds=1.0,
            tokens_per_second=100.0,
            peak_rss_bytes_per_rank=1,
            packing=PackingCounts(conversations=1, truncated=0, skipped=0, passes=1),
            base_weights=self.training.base_weights,
            leaks=self.leaks,
        )

    def train_personal(
        self,
        plan: RoundPlan,
        work: PersonalWork,
        report: StatusReporter,
    ) -> TrainingResult:
        """As local training, with losses that are half of everybody's; `while_personal` first."""
        self.asked["train_personal"] += 1
        report.show("training", step=1, steps=1, readings=SPEED)
        self.while_personal()
        directory = self.directory / plan.run / f"round-{plan.round:04d}"
        records = directory / "records.jsonl"
        write_durably(records, b"{}\n")
        federated = TrainingJob(
            model_dir=self.directory,
            layout=plan.layout_of(self.silo),
            recipe=plan.recipe,
            round=plan.round,
            starting_adapter=work.starting.path,
            train_records=records,
            heldout_records=records,
            output_dir=directory,
            heldout_sequences=self.training.heldout_sequences,
        )
        job = work.make(federated, plan.evaluate_by)
        files = RunFiles(job.output_dir)
        files.prepare()
        tensors = self._tensors(plan, None)
        wanted = expected_shapes(job.layout)
        personal = {n: PERSONAL_FACTOR * array for n, array in tensors.items() if n in wanted}
        save_file(personal, files.adapter)
        used = Loss(nats=BASE_LOSS / 2, tokens=100)
        return TrainingResult(
            adapter=files.adapter,
            tokens=job.recipe.tokens_per_round,
            steps=job.recipe.local_steps,
            resumed_from_step=0,
            first_step_loss=BASE_LOSS,
            last_step_loss=BASE_LOSS / 2,
            seconds=1.0,
            tokens_per_second=100.0,
            peak_rss_bytes_per_rank=1,
            packing=PackingCounts(conversations=1, truncated=0, skipped=0, passes=1),
            personal=PersonalMeasures(own=used, used=used),
        )

    def evaluate(
        self,
        plan: RoundPlan,
        verdict: Verdict,
        adapters: EvaluatedAdapters,
        report: StatusReporter,
    ) -> HeldoutLosses:
        """Losses that fall with the rounds, unless this silo is unhappy."""
        self.asked["evaluate"] += 1
        starting = max(BASE_LOSS - 0.1 * (plan.round - 1), LOWEST_LOSS)
        step = 0.5 if self.behaviour is Behaviour.UNHAPPY else -0.1
        return HeldoutLosses(
            tokens=100,
            base=BASE_LOSS,
            starting=starting,
            candidate=starting + step,
            silo_only=None,
            records=HELDOUT_RECORDS,
            change_error=CHANGE_ERROR,
            base_change_error=CHANGE_ERROR * plan.round,
        )

    def measure(
        self,
        plan: RoundPlan,
        verdict: Verdict,
        adapters: Sequence[GlobalAdapter],
        report: StatusReporter,
    ) -> tuple[Loss, ...]:
        """Losses that silo and adapter decide, over as many tokens as the silo's name says."""
        tokens = 100 + _drawn(self.silo) % 900
        return tuple(Loss(nats=self._loss(adapter), tokens=tokens) for adapter in adapters)

    def give_back_idle(self) -> None:
        """Nothing of a simulated training stays in memory."""

    def close(self) -> None:
        """As `give_back_idle`."""

    def _leave(self, plan: RoundPlan, files: RunFiles) -> None:
        write_durably(files.checkpoints / "step-1" / "state.pt", b"c" * CHECKPOINT_BYTES)
        write_durably(files.directory / "log-rank-0.txt", b"step 1\n")
        kept = self.directory.parent / SILO_ONLY / plan.run / f"round-{plan.round:04d}.safetensors"
        write_durably(kept, files.adapter.read_bytes())

    def _loss(self, adapter: GlobalAdapter) -> float:
        digest = artifact_of_file(adapter.path).digest if adapter.path else "base"
        return BASE_LOSS - _drawn(f"{self.silo}:{digest}") / 2**32

    def _tensors(self, plan: RoundPlan, starting: Path | None) -> dict[str, np.ndarray]:
        borrows = self.behaviour in BORROWING
        drawn_by = "silo-a" if borrows else self.silo
        rng = np.random.default_rng(_drawn(f"{drawn_by}:{plan.round}"))
        layout, trained = plan.layout_of(self.silo), plan.recipe.trained_factors
        start: AdapterSource = (
            InitialAdapter(plan.layout) if starting is None else open_adapter(starting, plan.layout)
        )
        if trained == "core":
            layout, start = layout.cores, UnmovedCores(start)
        tensors: dict[str, np.ndarray] = {}
        for target in layout.targets:
            a, b = narrowed(start, layout).module(target)
            is_pair = target.whole is None
            if trained != "b" and is_pair:
                a = rng.standard_normal(a.shape).astype(np.float32)
            if trained != "a" or not is_pair:
                b = rng.standard_normal(b.shape).astype(np.float32)
            if self.behaviour is Behaviour.NOT_FINITE:
                b[0, 0] = np.nan
            if self.behaviour is Behaviour.HUGE:
                b[0, 0] = 1e30
            if self.behaviour is Behaviour.ZERO_DELTA:
                b[:] = 0
            if self.behaviour is Behaviour.MIRRORED:
                b *= -1
            if self.behaviour is Behaviour.REWRITING and is_pair:
                a, b = _rewritten(a, b)
            if self.behaviour is Behaviour.LOUD:
                b *= 100
            if self.behaviour is Behaviour.THAWED and is_pair:
                a += 1
            tensors |= named_tensors(target, a, b)
        return tensors


def _secret_of(home: Path, plan: RoundPlan, verdict: Verdict) -> bytes | None:
    """What the noise of a private training is drawn from, of the only job that there is."""
    if plan.privacy is None:
        return None
    digests = verdict.plan_digest, verdict.findings_digest
    job = digest_of_bytes(f"job of round {plan.round}".encode())
    return PrivacyLedger(home).secret_for(*digests, job, verdict.issued_at).read_bytes()


def _rewritten(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same product but for noise of 2 %: ranks in another order, one twice as long."""
    noise = np.random.default_rng(1)
    order = np.arange(len(a))[::-1]
    sizes = np.where(order == 0, 2, 1).astype(np.float32)
    a, b = a[order] * sizes[:, None], b[:, order] / sizes
    return (
        a * (1 + 0.02 * noise.standard_normal(a.shape).astype(np.float32)),
        b * (1 + 0.02 * noise.standard_normal(b.shape).astype(np.float32)),
    )


def _drawn(text: str) -> int:
    """An integer below 2**32 that the text decides."""
    return int(digest_of_bytes(text.encode())[:8], 16)


@dataclass
class SimulatedGate:
    """A data gate with a fixed answer; satisfies `DataGate`. `units`: training records, and their
    subjects."""

    contract: SimulatedContract
    behaviour: Behaviour
    expires_at: datetime
    remembered: list[str]
    units: tuple[int, int | None] = field(default=(80, 40), kw_only=True)
    asked: Counter[str] = field(default_factory=Counter, kw_only=True)

    def check(self, progress: Callable[[int], None] = lambda records: None) -> GateOutcome:
        """An outcome of every rule that a verdict must speak about; one of them may fail."""
        self.asked["check"] += 1
        outcomes = tuple(self._outcome(rule) for rule in sorted(self._rules()))
        return GateOutcome(
            passed=all(outcome.success for outcome in outcomes),
            outcomes=outcomes,
            licences=(LicenceCount(licence="MIT", records=100),),
            findings_digest=FINDINGS,
            contract_digest=self.contract.digest,
            expires_at=self.expires_at,
            operator_notes=(),
            train_records=self.units[0],
            train_subjects=self.units[1],
            heldout_records=HELDOUT_RECORDS,
        )

    def remember(self, findings_digest: str) -> None:
        """Noted, so that a test can ask which findings became the baseline of drift."""
        self.remembered.append(findings_digest)

    def forget_unused(self) -> None:
        """Nothing is kept."""

    def _rules(self) -> frozenset[str]:
        if self.behaviour is Behaviour.INCOMPLETE_VERDICT:
            return REQUIRED_RULES - {"personal_data.limit"}
        return REQUIRED_RULES

    def _outcome(self, rule: str) -> RuleOutcome:
        fails = self.behaviour is Behaviour.FAILING_CONTRACT and rule == "licence.allowed"
        return RuleOutcome(
            rule=rule,
            type="built_in",
            success=not fails,
            severity="critical",
            element_count=100,
            unexpected_count=20 if fails else 0,
        )


@dataclass
class SimulatedSilo:
    """One silo with its home, inbox and behaviour; `asked`: how often of gate and trainer;
    `secrets`: what the noise of each of its private trainings was drawn from."""

    name: str
    home: Path
    key: SigningKey
    plans: Bucket
    inbox: Bucket
    clock: FakeClock
    contract: SimulatedContract
    behaviour: Behaviour = Behaviour.HONEST
    training: TrainingSection = field(default_factory=TrainingSection)
    personal: PersonalSection = field(default_factory=PersonalSection)
    verdict_validity: timedelta = timedelta(days=1)
    while_training: Callable[[], None] = lambda: None
    while_personal: Callable[[], None] = lambda: None
    trainings: int = 0
    remembered: list[str] = field(default_factory=list)
    units: tuple[int, int | None] = (80, 40)
    secrets: list[bytes | None] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    leaks: LeakFigures | None = field(default=FEW_LEAKS, kw_only=True)
    asked: Counter[str] = field(default_factory=Counter, kw_only=True)

    def agent(self, federation: str, pinned: Verified[Membership]) -> Silo:
        """A fresh agent on this home directory, as after a restart."""
        switch = KillSwitch(self.home)
        return Silo(
            config=SiloConfig(
                silo=self.name,
                federation=federation,
                storage=StorageSection(endpoint_url="http://127.0.0.1:1"),
                training=self.training,
                personal=self.personal,
                agent=AgentSection(poll_seconds=5, status_seconds=10),
                home=self.home,
            ),
            feed=FeedReader(self.home / "feed", self.plans, pinned, owner_error=SiloOperatorError),
            plans=self.plans,
            release=Release(
                outbox=Outbox(self.home / "outbox", self.key),
                inbox=self.inbox,
                clock=self.clock,
                is_stopped=switch.is_on,
                in_force=InForce(
                    self.contract.terms, partial(read_policy, self.home / "policy.toml")
                ),
            ),
            gate=SimulatedGate(
                self.contract,
                self.behaviour,
                self.clock.now() + self.verdict_validity,
                self.remembered,
                units=self.units,
                asked=self.asked,
            ),
            trainer=self._trainer(),
            clock=self.clock,
            is_stopped=switch.is_on,
            identities=load_identities(self.identity),
        )

    @property
    def identity(self) -> Path:
        """The file of this silo's age identity."""
        return self.home / "keys" / "identity.txt"

    def act(self, federation: str, pinned: Verified[Membership]) -> Step | None:
        """One step of a freshly started agent: nothing it needs may live in memory only."""
        if self.behaviour is Behaviour.ABSENT:
            return None
        agent = self.agent(federation, pinned)
        if self.behaviour is Behaviour.SILENT_EVALUATOR and self._has_submitted():
            return None
        try:
            return poll_once(agent)
        except ConsortiaError as error:
            self.faults.append(str(error))
            return None

    def kinds(self) -> set[str]:
        """Kinds of records in the inbox, and `blobs` when there is one; statuses do not count."""
        blobs = {"blobs" for _ in self.inbox.list_keys("blobs/")}
        return blobs | {info.key.split("/")[4] for info in self.inbox.list_keys("rounds/")}

    def _trainer(self) -> SimulatedTrainer:
        trainer = SimulatedTrainer(
            self.name, self.home / "work", self.behaviour, self._train, asked=self.asked
        )
        trainer.training, trainer.secrets = self.training, self.secrets
        trainer.leaks = self.leaks
        trainer.while_personal = self.while_personal
        return trainer

    def _train(self) -> None:
        self.trainings += 1
        self.while_training()

    def _has_submitted(self) -> bool:
        return any("/submission/" in info.key for info in self.inbox.list_keys("rounds/"))
