"""The registries that a silo was given: for each name a manifest, a filter and a key.

They lie in one directory as `<name>.manifest.json`, `<name>.bloom` and `<name>.key` (mode 0600),
image hashes as `<name>.pdq`. Which ones must be there, and who must have signed them, is the
contract's to say. `fingerprint` only looks at bytes; `load` checks signatures and expiry.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import rfc8785

from data_contracts.dataset.contract import DataContract
from data_contracts.errors import ConsortiaError
from data_contracts.protocol.artifact import digest_of_bytes
from infra.disk.file_digests import FileDigests

if TYPE_CHECKING:
    from data_contracts.dataset.findings.checks import References

_PARTS = ("manifest.json", "bloom", "key")


class ReferencesError(Exception):
    """A registry that the contract names is absent, expired, or not what its signer signed."""


@dataclass(frozen=True)
class SiloReferences:
    """The registries of one contract in `directory`."""

    federation: str
    contract: DataContract
    directory: Path
    digests: FileDigests

    def fingerprint(self) -> str:
        """SHA-256 that names every byte of the registries; raises ReferencesError when absent."""
        try:
            entries = {path.name: self.digests.artifact(path).digest for path in self._files()}
        except (OSError, ConsortiaError) as error:
            found = getattr(error, "filename", None) or "a registry"
            raise ReferencesError(f"{found} cannot be read") from None
        self.digests.save()
        return digest_of_bytes(rfc8785.dumps(entries))

    def load(self, now: datetime) -> "References":
        """Every registry, checked at `now`; raises ReferencesError with the first that fails."""
        # Imported here because numpy takes long to load and an unchanged data set needs neither.
        from data_contracts.dataset.copyright.registry import load_registry
        from data_contracts.dataset.findings.checks import References
        from data_contracts.dataset.image_hashes import ImageHashRegistry

        try:
            registries = tuple(
                load_registry(
                    self._path(trusted.name, "manifest.json"),
                    self._path(trusted.name, "bloom"),
                    self._path(trusted.name, "key").read_bytes(),
                    {trusted.signer},
                    now,
                )
                for trusted in self.contract.terms.copyright.registries
            )
            images = self.contract.terms.images.registry
            hashes = ImageHashRegistry.from_file(self._path(images, "pdq")) if images else None
        except OSError as error:
            raise ReferencesError(f"{error.filename} cannot be read") from None
        except ConsortiaError as error:
            raise ReferencesError(str(error)) from None
        for registry in registries:
            self._require_own_federation(registry.manifest.name, registry.manifest.federation)
        return References(registries=registries, images=hashes)

    def _require_own_federation(self, name: str, federation: str) -> None:
        if federation != self.federation:
            raise ReferencesError(f"registry {name} was made for federation {federation}")

    def _files(self) -> list[Path]:
        names = [trusted.name for trusted in self.contract.terms.copyright.registries]
        files = [self._path(name, part) for name in names for part in _PARTS]
        images = self.contract.terms.images.registry
        return [*files, *([self._path(images, "pdq")] if images else [])]

    def _path(self, name: str, part: str) -> Path:
        return self.directory / f"{name}.{part}"
