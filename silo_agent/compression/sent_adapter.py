"""What leaves this silo of its local adapter: the file itself, or what compression makes of it.

The error of compression stays here and goes into the next round. Whether the round before was
merged is asked of the coordinator's signed records, and what was sent in it of this silo's own
outbox; see `silo_agent.compression.residual_state` for what follows from the two.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from data_contracts.adapters.adapter_format import check_adapter, open_adapter
from data_contracts.adapters.block_quantisation import SCHEMES
from data_contracts.adapters.quantised_format import CODES_SUFFIX, check_quantised
from data_contracts.adapters.remembered_start import RememberedStart
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter, narrowed
from data_contracts.adapters.tensor_layout import read_header
from data_contracts.dataset.contract.agreement import Parties
from data_contracts.protocol.bucket_layout import attempt_of_record
from data_contracts.protocol.records import Candidate, Close, RoundPlan, RoundRecord, Submission
from infra.processes.worker_threads import default_workers
from infra.records.record_store import Found, read_record
from infra.storage.object_store import Bucket
from silo_agent.compression.error_feedback import CarriedError, LocalRound, compress
from silo_agent.compression.residual_state import Carry, ErrorFeedback, RoundBefore
from silo_agent.release.outbox import Outbox

STATE_DIRECTORY = "error-feedback"
HEADER_LIMIT = 100_000_000

RoundRecordT = TypeVar("RoundRecordT", bound=RoundRecord)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SentAdapters:
    """Makes what is sent, for one silo; `home` is where its state is kept."""

    home: Path
    silo: str
    outbox: Outbox
    plans: Bucket

    def file(
        self,
        plan: RoundPlan,
        local: Path,
        starting: Path | None,
        signers: Parties,
    ) -> Path:
        """The file to submit for the trained adapter `local`, through the gate.

        `starting` is the run's adapter that the round started from, None for the plan's seed;
        `signers` are all keys that silo and coordinator have had, for the round before. The same
        inputs give the same bytes. Where the state of error feedback is not the one that belongs to
        this silo's last submission, nothing is carried, and the log says so.
        """
        layout = plan.submitted_by(self.silo)
        if plan.compression == "none":
            check_adapter(local, layout)
            return local
        start = RememberedStart(narrowed(_source(plan, starting), layout), default_workers())
        scheme = SCHEMES[plan.compression]
        feedback = ErrorFeedback(self.home / STATE_DIRECTORY, plan.run)
        carry, carried = self._carry(feedback, plan, signers)
        sent = local.with_name(f"{local.stem}-{plan.compression}{local.suffix}")
        files = feedback.files(plan.round, sent, plan.merge.is_rebasing)
        trained = plan.recipe.trained_factors
        round_ = LocalRound(open_adapter(local, layout), start, scheme, trained)
        compressed = compress(round_, carried, files)
        _tell_lost(plan.round, compressed.lost_share)
        check_quantised(sent, layout, scheme, start)
        feedback.keep(plan.round, layout, _starting_digest(plan), carry, compressed)
        return sent

    def _carry(
        self, feedback: ErrorFeedback, plan: RoundPlan, signers: Parties
    ) -> tuple[Carry, CarriedError | None]:
        before, layout = self._round_before(plan, signers), plan.submitted_by(self.silo)
        carry, carried = feedback.open(
            feedback.carried_into(plan.round, layout, _starting_digest(plan), before)
        )
        dropped = carry.record is None and plan.round > 1
        level = logging.WARNING if dropped else logging.INFO
        log.log(level, "error feedback of round %d: %s", plan.round, carry.reason)
        return carry, carried

    def _round_before(self, plan: RoundPlan, signers: Parties) -> RoundBefore:
        """What this silo sent in the round before, and whether the plan starts from its merge."""
        submission = self.outbox.last_submission(plan.run, plan.round - 1, signers.silo_keys)
        if submission is None or not self._is_compressed(submission):
            return RoundBefore(submitted=None, merged=False)
        close = self._read(submission, Close, signers.coordinator_keys)
        candidate = self._read(submission, Candidate, signers.coordinator_keys)
        admitted = close is not None and self.silo in {item.silo for item in close.admitted}
        # A plan may name the same adapter as another ciphertext, for other readers.
        start = plan.starting_adapter
        merged_into = candidate.adapter.plain if candidate is not None else None
        published = merged_into is not None and start is not None and merged_into == start.plain
        return RoundBefore(submitted=submission.adapter.digest, merged=admitted and published)

    def _is_compressed(self, submission: Submission) -> bool:
        """A file that is gone counts as compressed: then its residual has to be there."""
        path = self.outbox.adapter(submission.adapter.plain)
        if not path.exists():
            return True
        header, _ = read_header(path, path.stat().st_size, HEADER_LIMIT)
        return any(name.endswith(CODES_SUFFIX) for name in header)

    def _read(
        self, submission: Submission, record_type: type[RoundRecordT], keys: Collection[str]
    ) -> RoundRecordT | None:
        reading = read_record(self.plans, attempt_of_record(submission), record_type, keys)
        return reading.verified.record if isinstance(reading, Found) else None


def _tell_lost(round_number: int, share: float) -> None:
    if share:
        log.info(
            "round %d: %.1f %% of the norm of the rounding error that was carried into it is "
            "lost: the factors that it starts from cannot express that part",
            round_number,
            100 * share,
        )


def _starting_digest(plan: RoundPlan) -> str | None:
    return plan.starting_adapter.digest if plan.starting_adapter else None


def _source(plan: RoundPlan, starting: Path | None) -> AdapterSource:
    if starting is None:
        return InitialAdapter(plan.exchanged)
    return open_adapter(starting, plan.exchanged)
