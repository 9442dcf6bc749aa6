"""A SuperLink of one's own: started, told what to run, and ended."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
START_SECONDS = 60.0


def served(stack: ExitStack, environment: dict[str, str]) -> tuple[str, subprocess.Popen[bytes]]:
    """The address of a SuperLink without TLS, when it answers, and its process."""
    port = str(free_port())
    address = f"127.0.0.1:{port}"
    command = [f"{BIN}/flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", port]
    command += ["--disable-runtime-dependency-installation"]
    process = start(stack, command, environment)
    wait(lambda: listens(address), START_SECONDS)
    return address, process


def own_environment(directory: Path) -> dict[str, str]:
    """Of every process: a home of its own below `directory`, and this folder's modules."""
    home = directory / "home"
    home.mkdir()
    return os.environ | {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(HERE.parent),
    }


def start(
    stack: ExitStack, command: list[str], environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Start a process that is ended with the stack; its output goes to the home's log."""
    log = stack.enter_context((Path(environment["FLWR_HOME"]) / "log").open("ab"))
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait(condition: Callable[[], bool], seconds: float) -> None:
    """Return when the condition holds; raises SystemExit after so many seconds."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(f"nothing after {seconds:g} s")
        time.sleep(0.2)


def listens(address: str) -> bool:
    """Whether somebody answers there."""
    host, port = address.split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def free_port() -> int:
    """One that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def submit(app: Path, address: str, environment: dict[str, str], config: str) -> None:
    """Hand the app over to be run with this configuration."""
    home = Path(environment["FLWR_HOME"])
    connection = f'[superlink.bench]\naddress = "{address}"\ninsecure = true\n'
    (home / "config.toml").write_text(connection)
    command = [f"{BIN}/flwr", "run", str(app), "bench", "--run-config", config]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
