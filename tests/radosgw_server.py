"""A Ceph cluster of one machine on loopback, in a folder: monitor, one OSD in memory, radosgw.

For campaigns only, where Debian's packages radosgw, ceph-mon and ceph-osd are installed.
"""

import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from infra.loopback import LOOPBACK
from infra.processes.local_processes import LocalProcess, start_process
from infra.stack.local_ports import free_port
from infra.storage.s3_client import S3Settings

PROGRAMS = ("radosgw", "radosgw-admin", "ceph", "ceph-mon", "ceph-osd", "ceph-authtool")
READY_SECONDS = 180.0
COMMAND_SECONDS = 120
GATEWAY = "client.rgw.a"

CONFIG = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{monitor}]
public network = 127.0.0.1/32
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
keyring = {folder}/keyring
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
crash dir = {folder}/crash
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{gateway}
osd objectstore = memstore
memstore device bytes = 1073741824
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail warn = 1
mon data avail crit = 0
"""


def missing_programs() -> list[str]:
    """Which of the programs are not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@dataclass(frozen=True)
class RadosGateway:
    """A running gateway; users are added while it runs."""

    endpoint_url: str
    folder: Path

    def add_user(self, name: str) -> S3Settings:
        """A user with a credential, who owns what it creates and sees nothing else."""
        secret = f"secret-of-{name}"
        keys = ("--access-key", name, "--secret-key", secret)
        self.run("radosgw-admin", "user", "create", "--uid", name, "--display-name", name, *keys)
        return S3Settings.model_validate(
            {"endpoint_url": self.endpoint_url, "access_key": name, "secret_key": secret}
        )

    def run(self, program: str, *arguments: str) -> str:
        """What one of Ceph's commands prints; fails with what it says."""
        config = ("--conf", str(self.folder / "ceph.conf"))
        done = subprocess.run(
            [program, *config, *arguments],
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{program} {arguments}: {done.stderr}"
        return done.stdout


@contextmanager
def running_gateway(folder: Path) -> Iterator[RadosGateway]:
    """A fresh cluster for as long as the block runs; what was stored goes with it."""
    monitor, gateway = free_port(), free_port()
    ceph = RadosGateway(f"http://{LOOPBACK}:{gateway}", folder)
    for name in ("mon", "osd", "rgw"):
        (folder / name).mkdir(parents=True)
    fsid = str(uuid4())
    text = CONFIG.format(fsid=fsid, monitor=monitor, gateway=gateway, folder=folder)
    (folder / "ceph.conf").write_text(text)
    _make_keys(ceph)
    with ExitStack() as running:
        _make_monitor(ceph, fsid, monitor)
        running.callback(_started(ceph, "ceph-mon", "-i", "a").stop)
        ceph.run("ceph", "auth", "import", "-i", str(folder / "keyring"))
        ceph.run("ceph", "osd", "create")
        ceph.run("ceph-osd", "-i", "0", "--mkfs")
        running.callback(_started(ceph, "ceph-osd", "-i", "0").stop)
        server = _started(ceph, "radosgw", "-n", GATEWAY)
        running.callback(server.stop)
        _wait(ceph.endpoint_url, server)
        yield ceph


def _make_keys(ceph: RadosGateway) -> None:
    keyring = ceph.folder / "keyring"
    for name in ("client.admin", "mon.", "osd.0", GATEWAY):
        caps = [part for kind in ("mon", "osd") for part in ("--cap", kind, "allow *")]
        create = [] if keyring.exists() else ["--create-keyring"]
        ceph.run("ceph-authtool", str(keyring), *create, "--gen-key", "-n", name, *caps)


def _make_monitor(ceph: RadosGateway, fsid: str, port: int) -> None:
    monmap, address = str(ceph.folder / "monmap"), f"[v2:{LOOPBACK}:{port}]"
    ceph.run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
    keyring = str(ceph.folder / "keyring")
    ceph.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)


def _started(ceph: RadosGateway, program: str, *arguments: str) -> LocalProcess:
    path = shutil.which(program)
    assert path is not None
    command = [path, "--conf", str(ceph.folder / "ceph.conf"), *arguments, "-f"]
    return start_process(program, command, ceph.folder / "state", env=dict(os.environ))


def _wait(address: str, server: LocalProcess) -> None:
    deadline = time.monotonic() + READY_SECONDS
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline and server.is_running():
        try:
            opener.open(address, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"radosgw does not answer: {server.log_tail()}")
