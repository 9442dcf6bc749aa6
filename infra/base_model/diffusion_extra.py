"""Whether this environment can train pipelines of diffusers; asked without loading anything."""

from importlib.util import find_spec

from data_contracts.errors import SiloOperatorError

PACKAGE, EXTRA = "diffusers", "consortia[diffusion]"


def require_diffusers() -> None:
    """Raise SiloOperatorError naming the extra that the family denoising needs here."""
    if find_spec(PACKAGE) is not None:
        return
    raise SiloOperatorError(
        "the family denoising",
        expected=f"the package {PACKAGE}, which loads its models",
        found="none in this environment",
        action=f'pip install "{EXTRA}"',
    )
