"""Makes an environment of its own for each peer system, from its pinned requirement file.

The peers are never a dependency of the product: they live under `.consortia/bench/peers/`, which
`make clean` removes. An environment is complete when the digest of its requirement file has been
written into it, last; one that is incomplete or made from another file is made anew.
"""

import argparse
import hashlib
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = Path(".consortia/bench/peers")
PEERS = ("flower", "nvflare", "opacus")
MARKER = "requirements.sha256"


def environment_python(peer: str, what: str = "requirements") -> Path:
    """The peer's Python interpreter, after making its environment if it is not there yet.

    `what` names the requirement file: `training` has transformers and PEFT besides. Raises
    subprocess.CalledProcessError if a package cannot be installed; pip says which.
    """
    directory = ENVIRONMENTS / (peer if what == "requirements" else f"{peer}-{what}")
    python = directory / "bin" / "python"
    requirements = HERE / peer / f"{what}.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    marker = directory / MARKER
    if marker.exists() and marker.read_text() == digest:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
    _install_torch(python, requirements)
    _pip_install(python, "--requirement", str(requirements))
    marker.write_text(digest)
    return python


def _install_torch(python: Path, requirements: Path) -> None:
    """As in infra/setup_environment.sh: TORCH_INDEX names where the CPU build comes from."""
    index = os.environ.get("TORCH_INDEX")
    pins = [line for line in requirements.read_text().splitlines() if line.startswith("torch==")]
    if index and pins:
        _pip_install(python, pins[0], "--index-url", index)


def _pip_install(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*command, *arguments], check=True)


def main() -> None:
    """Make the environments named on the command line, or all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("peers", nargs="*", choices=[*PEERS, []], default=[])
    for peer in parser.parse_args().peers or PEERS:
        sys.stdout.write(f"{peer}: {environment_python(peer)}\n")


if __name__ == "__main__":
    main()
