"""What a round costs a Flower silo besides its training steps: SuperLink, SuperNode, ClientApp.

`overhead.py FOLDER ROUNDS` prints the rounds as JSON. All is as Flower starts it by default, on
loopback; no TLS, which favours Flower.
"""

import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from superlink import (
    BIN,
    HERE,
    free_port,
    own_environment,
    served,
    start,
    submit,
    wait,
)

ROUNDS_SECONDS = 1500.0


def main(folder: Path, rounds: int) -> None:
    """Start everything, submit the run, wait for its figures."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        variables = own_environment(Path(name)) | {"HF_HUB_OFFLINE": "1"}
        address, _ = served(stack, variables)
        node = [f"{BIN}/flower-supernode", "--insecure", "--superlink", address]
        start(stack, [*node, "--port", str(free_port())], variables)
        config = f'rounds={rounds} folder="{folder}"'
        submit(HERE / "training", address, variables, config)
        found = folder / "overhead.json"
        try:
            wait(found.exists, ROUNDS_SECONDS)
        except SystemExit:
            sys.stderr.write((Path(variables["FLWR_HOME"]) / "log").read_text()[-4000:])
            raise
        sys.stdout.write(json.dumps(json.loads(found.read_text())) + "\n")
        found.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
