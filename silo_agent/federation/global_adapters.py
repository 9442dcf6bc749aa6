"""Adapters of the run as they reach a silo: by digest from the plans bucket, then the gate.

What was fetched once is kept under its digest, opened on its way where it is encrypted. An adapter
of the rule `residual` comes with its residual, a second adapter of the plan's `residual_layout`;
both are checked before either is used.
"""

from dataclasses import dataclass
from pathlib import Path

from data_contracts.adapters.adapter_format import check_adapter, open_adapter
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.artifact import ArtifactRef, artifact_of_file
from data_contracts.protocol.records import Candidate, RoundPlan
from data_contracts.protocol.records.contribution_request import CoalitionAdapter
from infra.encryption.encrypted_files import opener
from infra.encryption.identities import Identities
from infra.storage.object_store import Bucket
from silo_agent.collaborators import GlobalAdapter

GLOBAL_ADAPTERS = "global-adapters"


@dataclass(frozen=True)
class GlobalAdapters:
    """The coordinator's adapters on this silo's disk; `identities` open what is encrypted."""

    home: Path
    plans: Bucket
    identities: Identities = ()

    def starting(self, plan: RoundPlan) -> GlobalAdapter:
        """What the round starts from; without a path it is the base model."""
        return self._fetch(plan, plan.starting_adapter, plan.starting_residual)

    def candidate(self, plan: RoundPlan, candidate: Candidate) -> GlobalAdapter:
        """What the round has merged."""
        return self._fetch(plan, candidate.adapter, candidate.residual)

    def coalition(self, plan: RoundPlan, part: CoalitionAdapter) -> GlobalAdapter:
        """What a few of the round's silos would have merged."""
        return self._fetch(plan, part.adapter, part.residual)

    @staticmethod
    def kept(home: Path, ref: ArtifactRef) -> Path:
        """Where an adapter is once it was fetched."""
        return home / GLOBAL_ADAPTERS / f"{ref.digest}.safetensors"

    def _fetch(
        self, plan: RoundPlan, adapter: ArtifactRef | None, residual: ArtifactRef | None
    ) -> GlobalAdapter:
        adapter_path = residual_path = None
        if adapter is not None:
            adapter_path = self._blob(adapter)
            check_adapter(adapter_path, plan.exchanged)
        if residual is not None:
            residual_path = self._residual(plan, residual)
        return GlobalAdapter(adapter_path, residual_path)

    def _residual(self, plan: RoundPlan, ref: ArtifactRef) -> Path:
        """All zero is fine: then averaging the factors has missed nothing."""
        if plan.residual_layout is None:
            raise UntrustedInputError(
                f"residual of round {plan.round}",
                expected=f"none under the merge rule {plan.merge.rule}",
                found=f"SHA-256 {ref.digest}",
                action="ask the federation operator for a new attempt of the round",
                rule="residual.unexpected",
            )
        path = self._blob(ref)
        for _ in open_adapter(path, plan.residual_layout).modules():
            continue
        return path

    def _blob(self, ref: ArtifactRef) -> Path:
        path = self.kept(self.home, ref)
        if not path.exists() or artifact_of_file(path) != ref.plain:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.plans.download_blob(ref, path, opened=opener(self.identities))
        return path
