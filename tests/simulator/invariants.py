"""What holds after every event of a year, whatever happened: one function for each promise.

Each takes what it looks at and gives the breaches in words, none where the promise is kept. They
read storage as a stranger would, with the federation's first membership and nothing else; only
`History` remembers what was there before. The promises are those of the project's page on threats.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from aggregator.audit.report_audit import audit
from aggregator.coordinator import Coordinator
from aggregator.decisions.stage import Stage
from aggregator.evidence.look import look
from aggregator.evidence.reader import read_attempt
from aggregator.federated_round import advance, report_round
from aggregator.feed.reading import read_federation
from aggregator.merge.adapter_merge import merge_adapters
from aggregator.merge.defence import defended
from aggregator.report.files import read_bundle
from aggregator.steps.merging import merge_inputs
from data_contracts.errors import ConsortiaError
from data_contracts.protocol.artifact import artifact_of_file, digest_of_bytes
from data_contracts.protocol.bucket_layout import attempt_of, blob_key, round_slot
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Close, Membership, RoundPlan, RoundReport
from infra.records.feed_reader import FeedReader
from infra.storage.object_store import Bucket
from tests.simulator.memory_bucket import InMemoryBucket

SIGNED_BY_NOBODY = ("status/",)
"""What is for display only: it is not kept, and nothing rests on it."""

Storage = Mapping[str, InMemoryBucket]


@dataclass(frozen=True)
class PlayedRound:
    """An attempt that was reported, and its coordinator as it would start now."""

    c: Coordinator
    plan: Verified[RoundPlan]
    report: Verified[RoundReport]

    @property
    def page(self) -> Path:
        """The file of the report that people read; bundle and archive have the same stem."""
        record = self.report.record
        attempt = "" if record.attempt == 1 else f"-attempt-{record.attempt:02d}"
        name = f"{record.run}-round-{record.round:04d}{attempt}.html"
        return self.c.reports / name


def absent_or_complete(played: PlayedRound) -> list[str]:
    """A round is absent or complete: a published one has all its records, its adapter in storage
    and as the published folder, and three files of its report."""
    record, bucket = played.report.record, played.c.plans
    wanted = {"published": ("close", "candidate", "decision", "report"), "aborted": ("report",)}
    breaches = []
    for kind in wanted.get(record.outcome, ("close", "candidate", "decision")):
        name = RoundReport.kind if kind == "report" else kind
        if not bucket.list_keys(round_slot(attempt_of(played.plan), name)):
            breaches.append(f"round {record.round} is {record.outcome} and has no {kind}")
    for suffix in (".json", ".html", ".zip"):
        if not played.page.with_suffix(suffix).exists():
            breaches.append(f"round {record.round} has no {suffix} file")
    if record.outcome == "published":
        breaches += _published_everywhere(played)
    return breaches


def merge_is_recomputed(played: PlayedRound) -> list[str]:
    """The merged bytes are those of a fault-free recomputation from the close."""
    attempt = read_attempt(played.c, read_federation(played.c), played.plan)
    if attempt.close is None or attempt.candidate is None:
        return []
    inputs = merge_inputs(played.c, played.plan.record, attempt.close.record)
    with TemporaryDirectory() as directory:
        into, beside = Path(directory, "adapter"), Path(directory, "beside")
        merged = merge_adapters(defended(inputs).inputs, into, beside)
    if merged.adapter == attempt.candidate.record.adapter:
        return []
    return [f"round {played.plan.record.round}: merged again, its adapter has other bytes"]


def counted_once(played: PlayedRound) -> list[str]:
    """As `each_counts_once`, of the close that lies in storage."""
    attempt = read_attempt(played.c, read_federation(played.c), played.plan)
    return each_counts_once(attempt.close.record, played.plan.record) if attempt.close else []


def each_counts_once(close: Close, plan: RoundPlan) -> list[str]:
    """A silo counts at most once, with no more than its weight, and nobody counts who was not
    asked."""
    silos = Counter(admitted.silo for admitted in close.admitted)
    bytes_ = Counter(admitted.adapter.digest for admitted in close.admitted)
    breaches = [f"{silo} counts {count} times" for silo, count in silos.items() if count > 1]
    breaches += [
        f"adapter {d[:8]} counts {count} times" for d, count in bytes_.items() if count > 1
    ]
    breaches += [
        f"{silo} counts and was not asked" for silo in sorted(silos.keys() - set(plan.cohort))
    ]
    cap = min(plan.merge.weight_cap_tokens, plan.recipe.tokens_per_round)
    return breaches + [f"{a.silo} weighs {a.weight}" for a in close.admitted if a.weight > cap]


def only_what_may_count_counts(played: PlayedRound) -> list[str]:
    """Nothing unsigned, stale or refused has influence: whatever was admitted is a submission on
    this plan, by a key that its membership names and that counted then, after an acceptance and a
    passing verdict on the contract that the plan pins."""
    feed = read_federation(played.c)
    attempt = read_attempt(played.c, feed, played.plan, played.report)
    if attempt.close is None:
        return []
    breaches, plan = [], played.plan.record
    for admitted in attempt.close.record.admitted:
        own = attempt.of(admitted.silo)
        verdict, submission = own.verdict, own.submission
        if own.acceptance is None or own.refusal is not None:
            breaches.append(f"{admitted.silo} counts without its agreement")
        if verdict is None or not verdict.record.passed:
            breaches.append(f"{admitted.silo} counts without a passing verdict")
        elif verdict.record.contract_digest != plan.contract_digest_of(admitted.silo):
            breaches.append(f"{admitted.silo} counts under another contract")
        if submission is None or submission.digest != admitted.submission_digest:
            breaches.append(f"{admitted.silo} counts without its submission")
        elif submission.record.plan_digest != played.plan.digest:
            breaches.append(f"{admitted.silo} counts with a submission on another plan")
    return breaches


def auditor_finds_nothing(played: PlayedRound, pinned: Iterable[Verified[Membership]]) -> list[str]:
    """The report verifies from every membership that an auditor may have been handed."""
    bundle = read_bundle(played.page.with_suffix(".json"))
    failed = [
        claim.name
        for membership in pinned
        for claim in audit(bundle, membership)
        if claim.outcome == "fail"
    ]
    return [f"round {played.plan.record.round}: {name}" for name in failed]


def quorum_or_abort(played: PlayedRound) -> list[str]:
    """Below quorum there is an abort that says so, and no model."""
    plan, record = played.plan.record, played.report.record
    admitted = sum(silo.outcome == "admitted" for silo in record.silos)
    if record.outcome == "published" and admitted < plan.quorum:
        return [f"round {plan.round} is published with {admitted} of {plan.quorum} silos"]
    if record.outcome == "aborted":
        breaches = [] if record.rule else [f"round {plan.round} is aborted without a rule"]
        if record.published_adapter != plan.starting_adapter:
            breaches.append(f"round {plan.round} is aborted and has a model of its own")
        return breaches
    return []


def log_verifies(
    plans: Bucket, pinned: Verified[Membership], head: int, membership: int
) -> list[str]:
    """Whoever comes new, with the first membership alone, reads the same memberships and the same
    feed, without a gap."""
    with TemporaryDirectory() as directory:
        reader = FeedReader(Path(directory), plans, pinned)
        try:
            feed = reader.refresh()
            numbers = [entry.record.feed_number for entry in reader.entries_back(feed)]
        except ConsortiaError as error:
            return [f"the log does not verify: {error}"]
    breaches = []
    if (feed.head.number, feed.membership.record.number) != (head, membership):
        breaches.append(f"a newcomer ends at entry {feed.head.number}, others at {head}")
    if numbers != list(range(head, 0, -1)):
        breaches.append(f"the feed has gaps: {len(numbers)} entries of {head}")
    return breaches


def rerun_writes_nothing(played: PlayedRound, storage: Storage) -> list[str]:
    """Doing a finished round again changes no object."""
    before = {name: dict(bucket.objects) for name, bucket in storage.items()}
    if look(played.c, played.plan).stage is not Stage.REPORTED:
        return [f"round {played.plan.record.round} is not finished"]
    advance(played.c, played.plan)
    report_round(played.c, look(played.c, played.plan))
    changed = [n for n, bucket in storage.items() if dict(bucket.objects) != before.get(n, {})]
    return [f"a finished round, done again, has changed {name}" for name in changed]


def nowhere(secrets: Mapping[str, bytes], objects: Iterable[tuple[str, bytes]]) -> list[str]:
    """Private keys and the canary of each silo's data are in no object and no line of a log."""
    return [
        f"{what} is in {place}"
        for place, data in objects
        for what, secret in secrets.items()
        if secret in data
    ]


def once_a_night(dates: Sequence[date]) -> list[str]:
    """Local dates on which rounds started: each one day after the one before."""
    return [
        f"from {before} to {after}"
        for before, after in pairwise(dates)
        if after - before != timedelta(days=1)
    ]


def polls_cost_the_same(polls: Sequence[tuple[int, int]], at_most: float) -> list[str]:
    """Mean requests of a poll in the last 30 nights, by those of the second 30, or the next that
    had any; `polls` are pairs of night and requests."""
    last = max(night for night, _ in polls)
    month = min(night // 30 for night, _ in polls if night >= 30)
    second = [count for night, count in polls if night // 30 == month]
    newest = [count for night, count in polls if night > last - 30]
    growth = mean(newest) / mean(second)
    return [] if growth <= at_most else [f"a poll costs {growth:.2f} times what it did"]


def flat(what: str, sizes: Sequence[tuple[int, float]], per_round: float) -> list[str]:
    """From the first to the last of `sizes`, pairs of rounds and size, growth a round is small."""
    (began, before), (ended, after) = sizes[0], sizes[-1]
    growth = (after - before) / max(1, ended - began)
    return [] if growth <= per_round else [f"{what} grows by {growth:.2f} a round"]


@dataclass
class History:
    """What was there before: nothing committed is lost or changed, and marks never fall."""

    _objects: dict[str, dict[str, bytes]] = field(default_factory=dict)
    _marks: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def new_objects(self, storage: Storage) -> Iterator[tuple[str, bytes]]:
        """What was put since the last call, statuses too."""
        for name, bucket in storage.items():
            known = self._objects.setdefault(name, {})
            for key, data in bucket.objects.items():
                if known.get(key) is not data:
                    yield f"{name}/{key}", data

    def nothing_is_lost(self, storage: Storage, pruned: frozenset[str] = frozenset()) -> list[str]:
        """Every object that was there is there with its bytes, but for what was pruned."""
        breaches = []
        for name, bucket in storage.items():
            for key, data in self._objects.get(name, {}).items():
                place = f"{name}/{key}"
                if key.startswith(SIGNED_BY_NOBODY) or place in pruned:
                    continue
                found = bucket.objects.get(key)
                if found is not data and found != data:
                    breaches.append(f"{place} is {'gone' if found is None else 'another'}")
            self._objects[name] = dict(bucket.objects)
        return breaches

    def marks_never_fall(
        self, marks: Mapping[str, tuple[int, ...]], rewound: Iterable[str] = ()
    ) -> list[str]:
        """Of each party its membership, feed entry and instant, in seconds, never get smaller,
        except where a person put a copy back (`rewound`)."""
        excused = set(rewound)
        fallen = [
            f"{party}: {before} to {marks[party]}"
            for party, before in self._marks.items()
            if party in marks
            and party not in excused
            and any(now < was for now, was in zip(marks[party], before, strict=True))
        ]
        self._marks |= marks
        return fallen


def _published_everywhere(played: PlayedRound) -> list[str]:
    record, breaches = played.report.record, []
    adapter = record.published_adapter
    if adapter is None:
        return [f"round {record.round} is published without an adapter"]
    data = played.c.plans.get(blob_key(adapter.digest), adapter.size)
    if data is None or digest_of_bytes(data) != adapter.digest:
        breaches.append(f"the adapter of round {record.round} is not in storage")
    file = played.c.published / "adapter_model.safetensors"
    if not file.exists() or artifact_of_file(file) != adapter:
        breaches.append(f"the published folder is not that of round {record.round}")
    return breaches
