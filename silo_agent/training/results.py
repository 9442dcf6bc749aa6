"""What training processes answer, and how far they are: JSON files, no torch."""

from pathlib import Path

from silo_agent.leaks.figures import LeakFigures
from silo_agent.training.engine_spec import BaseWeights
from silo_agent.training.job_value import JobValue
from silo_agent.training.loss import Loss, RecordSums
from silo_agent.training.personal_part import PersonalMeasures


class PackingCounts(JobValue):
    """How the training records became sequences. `truncated` lost their end, `skipped` had a
    prompt that left no room for an answer, were `refused` by the chat template, have no border
    before an answer with it, are too long as answers told apart, or are `untellable`: they spell
    control tokens that cannot be told as text. `passes` above 1
    means that the data was used again. Of the conversations that were used so many are one answer
    of several, told `apart` because the template changes earlier turns, and so many `continued` the
    document (or the conversation) of the one before.
    `spell_controls`: so many held the text of a control token, which was taken as text. Without
    `together` each conversation was a sequence of its own, because the model mixes neighbours."""

    conversations: int
    truncated: int
    skipped: int
    passes: int
    spell_controls: int = 0
    refused: int = 0
    without_border: int = 0
    too_long_apart: int = 0
    untellable: int = 0
    apart: int = 0
    continued: int = 0
    together: bool = True


class TrainingResult(JobValue):
    """What training produced. `first_step_loss` and `last_step_loss` are on the training records,
    in nats per answer token, and None of a private job: they would tell of the records what its
    adapter does not. `base`, `starting`, `local` and `silo_only` are held-out losses, None
    where the job did not ask for them, the first two with their records.

    `tokens` counts the tokens processed in training, without the padding of a micro-batch, which is
    told as it was used: 1 where the model mixes sequences that go through it side by side.
    The silo-only fields are None when the baseline was not asked for or not reached in time, its
    loss also where the training model is not the one that is measured, and `personal` for every job
    but that of a personal adapter; `leaks` where the job asked for them, with the time that they
    took, which is no part of `seconds`. The outbox keeps `adapter` under a second name, so it must
    not be written again in place.
    """

    adapter: Path
    tokens: int
    steps: int
    resumed_from_step: int
    first_step_loss: float | None
    last_step_loss: float | None
    seconds: float
    tokens_per_second: float
    peak_rss_bytes_per_rank: int
    packing: PackingCounts
    micro_batch: int = 1
    base_weights: BaseWeights = "full"
    base: Loss | None = None
    starting: Loss | None = None
    local: Loss | None = None
    silo_only: Loss | None = None
    silo_only_adapter: Path | None = None
    personal: PersonalMeasures | None = None
    leaks: LeakFigures | None = None


class HeldoutLoss(Loss):
    """The loss of one adapter on one held-out set.

    `sequences` holds (summed nats, answer tokens) of each sequence in their order and `records`
    those of each record, where the job asked for them.
    """

    adapter: str
    heldout: str
    sequences: RecordSums = ()


class EvaluationResult(JobValue):
    """One loss per adapter and held-out set; `together` as in `PackingCounts`."""

    losses: tuple[HeldoutLoss, ...]
    seconds: float
    together: bool = True

    def loss(self, adapter: str, heldout: str) -> HeldoutLoss:
        """The entry of one pair; raises KeyError when it was not measured."""
        for entry in self.losses:
            if (entry.adapter, entry.heldout) == (adapter, heldout):
                return entry
        raise KeyError((adapter, heldout))


class Progress(JobValue):
    """Where the training processes are. `eta_seconds` covers the rest of the current phase.

    The agent adds `memory_bytes`, the resident memory of the rank that holds most;
    `gpu_memory_bytes` is the most that PyTorch has had on the first rank's GPU since it started.
    """

    phase: str
    step: int = 0
    steps: int = 0
    loss: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
