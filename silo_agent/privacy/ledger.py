"""The ledger on disk: what private trainings of this silo were charged, before anything leaves.

Guaranteed: a line is on disk, synced, before the training that it charges begins; nothing is ever
taken off; a ledger that was changed, or put back to an older state, is found and nothing is charged
on it. Three things know how far it had come: the lines themselves, each naming the one before; a
mark beside it in the home; and the statements in verdicts that this silo has signed, which the
caller reads in outbox and storage. The secret of a training lies in a file of its own, mode 0600,
from the charge until the adapter is out.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from data_contracts.errors import SiloOperatorError
from data_contracts.privacy.accountant import NoGuaranteeError, PrivateSteps, epsilon_of
from data_contracts.protocol.records.privacy_terms import PrivacyStatement
from data_contracts.protocol.wire_types import Digest, Part, PositiveCount
from infra.disk.durable_files import private_file, sync_directory, write_durably
from infra.disk.own_files import own_entries
from infra.terminal import command_line
from silo_agent.policy.plan_context import PolicyRefusal
from silo_agent.policy.privacy_rules import BUDGET_SPENT, REPLAYED
from silo_agent.privacy.ledger_lines import (
    Begun,
    BrokenChainError,
    Charged,
    Closed,
    LedgerLines,
    Line,
)

PRIVACY = "privacy"
"""Directory of the home, with the ledger and the secrets of trainings that are not out."""
LEDGER_NAME, SECRETS = "ledger.jsonl", "secrets"
MARK_NAME = "privacy-mark.json"
"""Beside that directory, so that one put back without the other is seen."""
SECRET_BYTES = 32
PRIVATE_DIRECTORY = 0o700


class Mark(Part):
    """How far the ledger had come: its lines, the digest of the last one, and the last charge of
    each population, which says its total."""

    lines: PositiveCount
    digest: Digest
    last: tuple[Charged, ...] = ()


class NotTrainedError(SiloOperatorError):
    """What was charged cannot be trained on, or not again; `refusal` is what leaves of it."""

    def __init__(self, found: str, refusal: PolicyRefusal) -> None:
        super().__init__(
            "private training",
            expected="one that was charged, is within the budget, and has not been released",
            found=found,
            action="nothing was released; the next round is charged anew",
        )
        self.refusal = refusal


@dataclass(frozen=True)
class PrivacyLedger:
    """The ledger in a silo's home. For one process at a time: whoever holds the agent's lock."""

    home: Path

    @property
    def path(self) -> Path:
        """The file of its lines."""
        return self.home / PRIVACY / LEDGER_NAME

    def read(self, signed: Iterable[PrivacyStatement] = ()) -> LedgerLines:
        """The lines; raises SiloOperatorError where they are not all that this silo ever wrote, as
        far as the mark and `signed` statements tell."""
        mark, lines = read_mark(self.home), self.peek(signed)
        if mark is None or mark.lines < len(lines.lines):
            self.mark(lines)
        return lines

    def peek(self, signed: Iterable[PrivacyStatement] = ()) -> LedgerLines:
        """As `read`, for whoever only looks: nothing is written."""
        # The mark first: an agent that writes meanwhile writes the line before it.
        mark = read_mark(self.home)
        lines = self._lines()
        if (found := _behind(lines, mark)) is not None:
            raise put_back(self.home, found)
        for statement in signed:
            if not lines.knows(statement):
                found = f"no charge for a statement about {statement.population}, which it signed"
                raise put_back(self.home, found)
        return lines

    def charge(self, lines: LedgerLines, charged: Charged) -> tuple[Line, Charged]:
        """Write a charge behind `lines`, with a new secret; what other plans left is closed."""
        for line, earlier in lines.open_charges():
            if earlier.plan_digest != charged.plan_digest:
                given_up = Closed(at=charged.at, charge=line.number, submission=None)
                lines = self.append(lines, given_up)
        self._forget_secrets({each.secret for _, each in lines.open_charges()})
        made = charged.model_copy(update={"secret": self._new_secret()})
        lines = self.append(lines, made)
        return lines.lines[-1], made

    def secret_for(self, plan: str, findings: str, training: str, now: datetime) -> Path:
        """The secret of a training on what a plan and findings (digests) were charged for.

        `training` is the fingerprint of its job. The same job finds the same secret; another one,
        or one whose secret is gone, is charged anew, because two trainings must never have the same
        noise. Raises NotTrainedError.
        """
        lines = self.read()
        if lines.is_replay(plan):
            raise NotTrainedError("an adapter that was released already", REPLAYED)
        found = lines.charge_for(plan, findings)
        if found is None:
            raise put_back(self.home, "no charge for the verdict of this round")
        line, charged = found
        path = self._secret_path(charged)
        begun = lines.begun(line.number)
        if path is None or not path.exists() or begun not in (None, training):
            line, charged = self._charge_again(lines, charged, now)
            lines, begun, path = self._lines(), None, self._secret_path(charged)
        if begun is None:
            self.append(lines, Begun(at=now, charge=line.number, training=training))
        if path is None:
            raise ValueError("a charge that was just written has a secret")
        return path

    def close(self, plan: str, submission: str | None, now: datetime) -> None:
        """Nothing is trained on a plan's charges any more; their secrets go. Does so once."""
        lines = self.peek()
        for line, charged in lines.open_charges():
            if charged.plan_digest == plan:
                ended = Closed(at=now, charge=line.number, submission=submission)
                lines = self.append(lines, ended)
        self._forget_secrets({each.secret for _, each in lines.open_charges()})

    def append(self, lines: LedgerLines, entry: Charged | Begun | Closed) -> LedgerLines:
        """Write an entry behind `lines`, which are all there is; then the mark."""
        after = self.write(lines, entry)
        self.mark(after)
        return after

    def write(self, lines: LedgerLines, entry: Charged | Begun | Closed) -> LedgerLines:
        """As `append`, but for the mark."""
        data = self.path.read_bytes() if lines.lines else b""
        written = data + lines.line_of(entry)
        write_durably(self.path, written)
        self.path.parent.chmod(PRIVATE_DIRECTORY)
        return LedgerLines.read(written)

    def _charge_again(
        self, lines: LedgerLines, charged: Charged, now: datetime
    ) -> tuple[Line, Charged]:
        """The same training once more, within the same budget."""
        lifetime = within(charged.epsilon_budget, lines, charged)
        if lifetime is None:
            raise NotTrainedError("another training, which goes over the budget", BUDGET_SPENT)
        again = {
            "at": now,
            "epsilon_lifetime": lifetime,
            "entries": 1 + sum(1 for _ in lines.charges(charged.population)),
            "told": None,
        }
        for line, earlier in lines.open_charges():
            if earlier.plan_digest == charged.plan_digest:
                lines = self.append(lines, Closed(at=now, charge=line.number, submission=None))
        return self.charge(lines, charged.model_copy(update=again))

    def _lines(self) -> LedgerLines:
        try:
            return LedgerLines.read(self.path.read_bytes())
        except FileNotFoundError:
            return LedgerLines()
        except (OSError, BrokenChainError) as error:
            raise put_back(self.home, str(error)) from None

    def mark(self, lines: LedgerLines) -> None:
        """Write down how far the ledger has come."""
        if lines.lines:
            last = {each.population: each for _, each in lines.charges()}
            mark = Mark(
                lines=len(lines.lines), digest=lines.lines[-1].digest, last=tuple(last.values())
            )
            write_durably(self.home / MARK_NAME, mark.model_dump_json().encode())

    def _new_secret(self) -> str:
        """A file that did not exist, synced before any line names it."""
        name = secrets.token_hex(16)
        directory = self.home / PRIVACY / SECRETS
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(PRIVATE_DIRECTORY)
        with private_file(directory / name) as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
        sync_directory(directory)
        return name

    def _secret_path(self, charged: Charged) -> Path | None:
        return self.home / PRIVACY / SECRETS / charged.secret if charged.secret else None

    def _forget_secrets(self, kept: set[str | None]) -> None:
        for path in own_entries(self.home / PRIVACY / SECRETS):
            if path.name not in kept:
                path.unlink(missing_ok=True)


def lifetime_of(
    lines: LedgerLines, population: str, delta: Decimal, *more: PrivateSteps
) -> Decimal:
    """Epsilon at `delta` of all that was charged to a population, and `more`."""
    charged = [each.private_steps for _, each in lines.charges(population)]
    return epsilon_of([*charged, *more], delta)


def risen(lines: LedgerLines, population: str, delta: Decimal, total: Decimal) -> Decimal:
    """A new total at `delta`, or one that was charged before where that is larger: what is signed
    never gets less, not by the rounding of an accountant either."""
    charges = (each for _, each in lines.charges(population))
    return max([total, *(each.epsilon_lifetime for each in charges if each.delta >= delta)])


def within(budget: Decimal, lines: LedgerLines, charged: Charged) -> Decimal | None:
    """The lifetime total with one more such charge; None where that is above `budget`."""
    try:
        more = charged.private_steps
        total = lifetime_of(lines, charged.population, charged.delta, more)
    except NoGuaranteeError:
        return None
    total = risen(lines, charged.population, charged.delta, total)
    return total if total <= budget else None


def read_mark(home: Path) -> Mark | None:
    """How far the ledger had come; SiloOperatorError where that cannot be read."""
    try:
        return Mark.model_validate_json((home / MARK_NAME).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise put_back(home, "a mark that cannot be read") from None


def higher_mark(ours: bytes, theirs: bytes) -> bytes:
    """Which of two marks, of the home and of a backup of it, names more lines."""
    home, backup = (Mark.model_validate_json(data) for data in (ours, theirs))
    return theirs if backup.lines > home.lines else ours


def longer_ledger(ours: bytes, theirs: bytes) -> bytes:
    """Which of two ledgers goes on from the other; SiloOperatorError where neither does."""
    if theirs.startswith(ours):
        return theirs
    if ours.startswith(theirs):
        return ours
    raise SiloOperatorError(
        "privacy ledgers of the home and of the backup",
        expected="one of which goes on from the other",
        found="two that contradict each other",
        action="restore into an empty directory, and find out which home is the federation's; "
        "nothing was restored",
    )


def put_back(home: Path, found: str) -> SiloOperatorError:
    """The ledger is not what it was: nothing is trained until a person has said what is right."""
    catch_up = command_line("silo-agent", "catch-up", "--home", home)
    return SiloOperatorError(
        f"privacy ledger {home / PRIVACY / LEDGER_NAME}",
        expected="every line that this agent wrote: it never gets shorter",
        found=found,
        action=f"stop the agent and put the newest {PRIVACY}/{LEDGER_NAME} and {MARK_NAME} back; "
        f"where there is none, run `{catch_up}`, which charges anew what this silo has signed. "
        "Nothing was trained",
    )


def _behind(lines: LedgerLines, mark: Mark | None) -> str | None:
    """How the ledger is less than its mark says."""
    if mark is None:
        # A kill between the first line and the first mark leaves one line.
        return None if len(lines.lines) <= 1 else f"no {MARK_NAME} beside {len(lines.lines)} lines"
    if len(lines.lines) < mark.lines:
        return f"{len(lines.lines)} lines, where {mark.lines} had been written: an older state"
    if lines.lines[mark.lines - 1].digest != mark.digest:
        return f"another line {mark.lines} than was written"
    return None
