"""Whether this machine can hold quantised base weights; asked without loading anything."""

from importlib.util import find_spec

from data_contracts.errors import SiloOperatorError
from silo_agent.config import TrainingSection
from silo_agent.training.engine_spec import BaseWeights

PACKAGE, EXTRA = "bitsandbytes", "consortia[quantised]"


def is_installed() -> bool:
    """Whether this environment has what quantises."""
    return find_spec(PACKAGE) is not None


def require_quantisation(training: TrainingSection) -> None:
    """As `require_bitsandbytes` where ranks run here; those of other machines ask there."""
    if training.nodes is None:
        require_bitsandbytes(training.base_weights)


def require_bitsandbytes(base_weights: BaseWeights) -> None:
    """Raise SiloOperatorError naming the extra that quantised weights need here."""
    if base_weights == "full" or is_installed():
        return
    raise SiloOperatorError(
        f'base_weights = "{base_weights}" in silo-agent.toml',
        expected=f"the package {PACKAGE}, which quantises them",
        found="none in this environment",
        action=f"pip install '{EXTRA}', or set base_weights = \"full\"",
    )
