"""What a demo plays: which institutions, in which trust mode, and who drops out on the way."""

import re
from dataclasses import dataclass
from pathlib import Path

from data_contracts.protocol.records.round_plan import TrustMode
from flows.demo.institutions import INSTITUTIONS, MORE_HOSPITALS
from infra.disk.durable_files import write_durably

THRESHOLD = 4
MASKING = f"""\
[masking]
threshold = {THRESHOLD}                 # institutions that a sum needs, of five

"""


@dataclass(frozen=True)
class Scenario:
    """`directory` is below the demo's state. `dropping` goes away in the last round, between what
    it seals for the others and what it would send; `makes_own`: personal adapters at the end."""

    trust_mode: TrustMode
    directory: str
    institutions: tuple[str, ...]
    dropping: str | None
    makes_own: bool = False

    def adapt(self, settings: Path) -> None:
        """The lines of `federation.toml` that its operator changes for this mode."""
        text = settings.read_text(encoding="utf-8")
        if self.trust_mode == "confidential":
            text = confidential(text)
        write_durably(settings, without_schedule(text).encode())


AUDITABLE = Scenario("auditable", "demo", INSTITUTIONS, None)
CONFIDENTIAL = Scenario(
    "confidential",
    "demo-confidential",
    (*INSTITUTIONS, *MORE_HOSPITALS),
    "west-hospital",
)
SCENARIOS: dict[str, Scenario] = {"auditable": AUDITABLE, "confidential": CONFIDENTIAL}


def confidential(settings: str) -> str:
    """The text of `federation.toml` in confidential mode; the same where it is that already."""
    if "\n[masking]\n" in settings:
        return settings
    text = re.sub(r'(?m)^trust_mode = "auditable"', 'trust_mode = "confidential"', settings)
    # Those that are set are for adapters that are seen.
    text = re.sub(r"(?m)^(rule|compression) = .*\n(\s+#.*\n)*", "", text)
    return text.replace("[publication]", f"{MASKING}[publication]", 1)


def without_schedule(settings: str) -> str:
    """The text of `federation.toml` without its cron line: a demo that runs at two in the morning
    would have one round more than it shows."""
    return re.sub(r"(?m)^cron = .*\n", "", settings)
