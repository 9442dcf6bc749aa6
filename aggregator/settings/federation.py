"""The federation's settings, parsed once from `federation.toml` in the operator's home directory.

Relative paths are relative to the home directory. What is set here becomes part of the signed
plan of every round; a silo's own policy can refuse it but never be weakened by it.
"""

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from aggregator.settings.masking import MaskingSection, masked_merge
from aggregator.settings.merge import MergeSection
from aggregator.settings.privacy import PrivacySection
from aggregator.settings.schedule import CronLine, TimeZone
from aggregator.settings.values import (
    Alpha,
    Minutes,
    Modules,
    NotNegative,
    Number,
    Positive,
    Quorum,
    Rank,
    Seed,
)
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.records.licence_terms import Use
from data_contracts.protocol.records.merge_spec import MergeSpec
from data_contracts.protocol.records.model_family import CAUSAL, FamilyTask, ModelFamily
from data_contracts.protocol.records.round_plan import TrustMode
from data_contracts.protocol.wire_types import (
    BaseModelName,
    Count,
    FederationId,
    HubCommit,
    HubId,
    LicenceId,
    Line,
    PositiveCount,
    RunId,
    SiloId,
    Text,
)
from infra.addresses import prefect_api
from infra.disk.toml_files import (
    MAX_TOML_BYTES,
    Seconds,
    TomlTable,
    parse_toml,
    read_limited,
    setting_fault,
)
from infra.storage.config import StorageSection

SETTINGS_NAME = "federation.toml"


class EncryptedStorageSection(StorageSection):
    """The storage, and whether adapters lie in it encrypted; see docs/storage.md.

    "age": to the cohort and the coordinator, by the recipients that the membership names. None:
    whoever runs the storage can read them, and silos have to say that they trust it.
    """

    encryption: Literal["age"] | None = None


class PrefectSection(TomlTable):
    """Prefect API of the coordinator; `auth` is a file holding user:password."""

    api_url: Annotated[str, AfterValidator(prefect_api)]
    auth: Path | None = Path("keys/prefect-auth")
    ca_bundle: Path | None = None


class BaseModelSection(TomlTable):
    """Base model by name, licence and local path; its digest is computed, not typed in.

    `licence_acceptance` says who accepted terms that ask for it, as in
    "LicenseRef-Gemma-Terms accepted by A. Person". `hub_id` ("organisation/name") and
    `hub_revision` (a commit) say where a user of the published adapter can have the model.
    """

    name: BaseModelName
    licence: LicenceId
    licence_acceptance: Text | None = None
    hub_id: HubId | None = None
    hub_revision: HubCommit | None = None
    path: Path

    @model_validator(mode="after")
    def _revision_is_of_a_repository(self) -> Self:
        if self.hub_revision is not None and self.hub_id is None:
            raise ValueError("hub_revision goes with a hub_id")
        return self


class TaskSection(TomlTable):
    """What is learned; see `data_contracts.protocol.records.model_family.FamilyTask`.

    `classes` in the order of the head, for the family sequence-classification alone.
    """

    family: ModelFamily = CAUSAL
    classes: tuple[Line, ...] | None = None

    @model_validator(mode="after")
    def _is_a_task(self) -> Self:
        _ = self.learned
        return self

    @property
    def learned(self) -> FamilyTask:
        """As plans name it."""
        return FamilyTask(family=self.family, classes=self.classes)


class AdapterSection(TomlTable):
    """LoRA layout. `target_modules` is "all-linear" or names as PEFT takes them."""

    rank: Rank = 8
    alpha: Alpha = 16
    target_modules: Literal["all-linear"] | Modules = "all-linear"
    seed: Count = 20260101
    use_rslora: bool = False


class SiloAdapterSection(TomlTable):
    """A silo's own layout; see `data_contracts.protocol.records.round_plan.SiloLayout`.

    `target_modules` None means all modules of the run.
    """

    rank: Rank
    alpha: Alpha
    target_modules: Modules | None = None


class RecipeSection(TomlTable):
    """Local training; see `data_contracts.protocol.records.round_plan.TrainingRecipe`.

    `least_steps` None: silos do all steps, or what they send does not count.
    """

    local_steps: PositiveCount
    least_steps: PositiveCount | None = None
    sequences_per_step: PositiveCount
    sequence_length: Annotated[int, Field(ge=16, le=1_000_000)]
    learning_rate: Positive
    warmup_steps: Count = 0
    weight_decay: NotNegative = Decimal("0")
    max_gradient_norm: Positive = Decimal("1")
    proximal_mu: NotNegative = Decimal("0")
    seed: Seed = 1


class RoundSection(TomlTable):
    """Quorums, deadlines (minutes from the plan) and how often the coordinator looks (seconds)."""

    quorum: Quorum
    evaluation_quorum: Quorum
    submit_minutes: Minutes = 720
    evaluate_minutes: Minutes = 240
    weight_cap_tokens: PositiveCount = 10_000_000
    max_attempts: Annotated[int, Field(ge=1, le=99)] = 2
    poll_seconds: Seconds = 5.0


class PublicationSection(TomlTable):
    """See `data_contracts.protocol.records.round_plan.PublicationRule`; nats per token.

    `name_silos` needs every silo's consent (`may_be_named` in its policy): others refuse the plan.
    """

    max_mean_increase: Number = Decimal("0")
    max_silo_increase: Number = Decimal("0.05")
    name_silos: bool = False


class LedgerSection(TomlTable):
    """Where decisions' evidence is kept under lock: as versions in the inboxes, or as copies.

    "copy" is for storage without versions or Object Lock. Mode and days: see
    `protocol.records.round_plan.Retention`; of copies they are what the ledger bucket says.
    """

    place: Literal["inbox", "copy"] = "inbox"
    mode: Literal["governance", "compliance"] = "governance"
    days: Annotated[int, Field(ge=1, le=36_500)] = 365


class CopiesSection(TomlTable):
    """Silos whose adapter counts although another's is the same: who decided that, and why.

    Without an entry neither of two counts. It becomes part of the next plan, for everybody to read.
    """

    counted: dict[SiloId, Line] = Field(default_factory=dict)


class DiskSection(TomlTable):
    """`keep_rounds`: of how many rounds that are over the workspace keeps the adapters."""

    keep_rounds: Annotated[int, Field(ge=0, le=10_000)] = 1


class ScheduleSection(TomlTable):
    """When the deployment starts a round by itself; without a line, only on demand."""

    cron: CronLine | None = None
    timezone: TimeZone = "UTC"


class FederationSettings(TomlTable):
    """Everything in `federation.toml`."""

    federation: FederationId
    run: RunId
    purpose: Line
    use: Use = "research"
    trust_mode: TrustMode = "auditable"
    storage: EncryptedStorageSection
    prefect: PrefectSection
    base_model: BaseModelSection
    task: TaskSection = TaskSection()
    adapter: AdapterSection = AdapterSection()
    recipe: RecipeSection
    round: RoundSection
    merge: MergeSection = MergeSection()
    masking: MaskingSection | None = None
    privacy: PrivacySection | None = None
    silo_adapters: dict[SiloId, SiloAdapterSection] = Field(default_factory=dict)
    publication: PublicationSection = PublicationSection()
    ledger: LedgerSection = LedgerSection()
    copies: CopiesSection = CopiesSection()
    disk: DiskSection = DiskSection()
    schedule: ScheduleSection = ScheduleSection()
    home: Path

    @model_validator(mode="before")
    @classmethod
    def _has_defaults_of_its_mode(cls, data: Any) -> Any:
        """What is not set is what the trust mode can have."""
        if not isinstance(data, dict) or data.get("trust_mode") != "confidential":
            return data
        merge = data.get("merge", {})
        given = merge if isinstance(merge, dict) else merge.model_dump(exclude_unset=True)
        return data | {"merge": masked_merge(given)}

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        _ = self.merge_spec
        if self.masking is not None and self.trust_mode != "confidential":
            raise ValueError('masking goes with trust_mode = "confidential"')
        return self

    @property
    def merge_spec(self) -> MergeSpec:
        """The merge as the plan names it."""
        return self.merge.spec(self.round.weight_cap_tokens)

    def path(self, relative: Path) -> Path:
        """`relative` as seen from the home directory."""
        return relative if relative.is_absolute() else self.home / relative


def load_settings(home: Path) -> FederationSettings:
    """Parse `federation.toml` under `home`; raises FederationOperatorError naming the setting."""
    path = home / SETTINGS_NAME
    try:
        return parse_settings(read_limited(path, MAX_TOML_BYTES), home)
    except FileNotFoundError:
        found, action = "no such file", "run `consortia federation init` first"
    except OSError as error:
        found, action = error.strerror or type(error).__name__, "correct the file"
    raise FederationOperatorError(
        f"federation settings {path}",
        expected="a complete federation.toml",
        found=found,
        action=action,
    )


def parse_settings(data: bytes, home: Path) -> FederationSettings:
    """The settings that `data` holds, for the directory `home`; raises as `load_settings` does."""
    path = home / SETTINGS_NAME
    try:
        return FederationSettings.model_validate({**parse_toml(data), "home": home.resolve()})
    except ValidationError as error:
        where, expected, found = setting_fault(error)
        problem = f"federation settings {path}: {where}"
    except ValueError as error:
        problem, expected, found = f"federation settings {path}", "TOML", str(error)
    raise FederationOperatorError(
        problem, expected=expected, found=found, action="correct this setting"
    )
