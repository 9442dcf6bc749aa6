"""What `[personal]` in `silo-agent.toml` asks for: an adapter of this silo's own.

Never to leave it: `dual` trains a second one beside the federation's, `ditto` one that is pulled
towards it.
"""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from infra.disk.toml_files import TomlTable

MAX_PULL = Decimal(1000)


class PersonalSection(TomlTable):
    """Off where nothing is said; then nothing of it costs anything.

    `pull` is called `lambda` in the file: of `ditto` alone. `share_loss`: the held-out loss of the
    personal adapter is told with the other losses, where the contract lets losses out. Without
    `every_round` one is made only when somebody asks for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    method: Literal["off", "dual", "ditto"] = "off"
    pull: Annotated[Decimal, Field(alias="lambda", gt=0, le=MAX_PULL)] = Decimal("0.01")
    share_loss: bool = True
    every_round: bool = True

    @property
    def is_on(self) -> bool:
        """Whether there is anything to do."""
        return self.method != "off"
