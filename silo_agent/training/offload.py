"""Whether this machine can do what `offload` asks for.

Offload to main memory needs nothing: the optimizer stays PyTorch's, DeepSpeed's own for CPUs would
be compiled. Offload to NVMe rests on DeepSpeed's async_io, which is compiled at first use.
"""

import os
import shutil
from ctypes.util import find_library

from data_contracts.errors import SiloOperatorError
from silo_agent.training.engine_spec import Offload

COMPILERS = ("c++", "g++", "clang++")


def require_offload(offload: Offload) -> None:
    """Raise SiloOperatorError naming what offload to NVMe lacks here."""
    if offload != "nvme":
        return
    lacking = [] if _has_compiler() else ["C++ compiler"]
    lacking += [] if find_library("aio") else ["libaio"]
    if lacking:
        raise SiloOperatorError(
            'offload = "nvme" in silo-agent.toml',
            expected="a C++ compiler and libaio, of which DeepSpeed builds its async_io",
            found=f"no {' and no '.join(lacking)}",
            action='set offload = "cpu" or "none", or install g++ and libaio with its headers',
        )


def _has_compiler() -> bool:
    named = os.environ.get("CXX")
    return any(shutil.which(name) for name in ((named,) if named else COMPILERS))
