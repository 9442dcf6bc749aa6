"""Nodes as pods of one Kubernetes Job, each with the number of its completion index."""

import json
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_contracts.errors import SiloOperatorError
from infra.disk.durable_files import write_durably
from silo_agent.nodes_settings import KubernetesSection
from silo_agent.training.engine_spec import Device
from silo_agent.training.nodes.node_launcher import (
    ASK_SECONDS,
    GIVE_UP_SECONDS,
    answer,
    node_command,
)

MANIFEST, LABEL = "job.json", "consortia/launch"
POD_HOME, POD_SHARED_MEMORY = "/tmp", "/dev/shm"  # noqa: S108  (of a pod's own)
EVERY_SECONDS = 15.0
KEPT_SECONDS = 3600
"""A Job that is over is removed by the cluster after so long, where its agent was killed."""
_ACTION = "see `kubectl describe` and [training.nodes.kubernetes] in silo-agent.toml"


@dataclass(frozen=True)
class Kubernetes:
    """Launches with kubectl, as the user and group that the agent runs as."""

    name: str
    nodes: int
    ranks_per_node: int
    threads: int
    device: Device
    settings: KubernetesSection

    def start(self, place: Path) -> "StartedPods":
        """As `NodeLauncher`."""
        _require_mounted(place, self.settings.mount)
        job = f"{self.name[:40].strip('-')}-{secrets.token_hex(4)}"
        text = json.dumps(self.manifest(place, job), indent=1)
        write_durably(place / MANIFEST, text.encode())
        kubectl = ["kubectl", "--namespace", self.settings.namespace]
        answer([*kubectl, "create", "--filename=-"], _ACTION, text)
        return StartedPods(kubectl, job)

    def manifest(self, place: Path, job: str) -> dict[str, Any]:
        """An indexed Job (batch/v1): no pod of it is started twice, none holds a credential."""
        node = {
            "name": "node",
            "image": self.settings.image,
            "command": node_command(place),
            "env": [{"name": "HOME", "value": POD_HOME}],
            "resources": {"limits": self._limits()},
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [
                {"name": "home", "mountPath": str(self.settings.mount)},
                {"name": "shared-memory", "mountPath": POD_SHARED_MEMORY},
            ],
        }
        pod = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsUser": os.getuid(), "runAsGroup": os.getgid()},
            "containers": [node],
            "volumes": [
                {
                    "name": "home",
                    "persistentVolumeClaim": {"claimName": self.settings.claim},
                },
                {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
            ],
        }
        labels = {"app.kubernetes.io/name": "consortia", LABEL: job}
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": job, "labels": labels},
            "spec": {
                "completionMode": "Indexed",
                "completions": self.nodes,
                "parallelism": self.nodes,
                "backoffLimit": 0,
                "ttlSecondsAfterFinished": KEPT_SECONDS,
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }

    def _limits(self) -> dict[str, str]:
        own = {"cpu": str(self.ranks_per_node * self.threads)}
        if self.device == "cuda":
            own["nvidia.com/gpu"] = str(self.ranks_per_node)
        return {**own, **self.settings.limits}


@dataclass
class StartedPods:
    """A Job that was created."""

    kubectl: list[str]
    job: str
    _asked: float = field(default_factory=time.monotonic)
    _lost: dict[int, str] = field(default_factory=dict)
    _waiting: dict[int, str] = field(default_factory=dict)

    def lost(self) -> Mapping[int, str]:
        """As `StartedNodes`; the cluster is not asked more often than every `EVERY_SECONDS`."""
        if time.monotonic() - self._asked >= EVERY_SECONDS:
            self._asked = time.monotonic()
            # Nodes that live are heard of; one question that was not answered says nothing.
            with suppress(SiloOperatorError, ValueError):
                said = json.loads(answer(self._pods(), _ACTION, seconds=ASK_SECONDS))
                self._lost, self._waiting = failed_pods(said), waiting_pods(said)
        return self._lost

    def waiting(self) -> Mapping[int, str]:
        """As `StartedNodes`."""
        return self._waiting

    def end(self) -> None:
        """As `StartedNodes`."""
        name = f"job/{self.job}"
        command = [*self.kubectl, "delete", "--ignore-not-found", "--wait=false", name]
        answer(command, f"end it by hand: {' '.join(command)}", seconds=GIVE_UP_SECONDS)

    def _pods(self) -> list[str]:
        return [*self.kubectl, "get", "pods", f"--selector={LABEL}={self.job}", "--output=json"]


def failed_pods(said: dict[str, Any]) -> dict[int, str]:
    """Nodes whose pods failed, in a list of pods as kubectl gives it, with the reason if any."""
    failed = [pod for pod in said["items"] if pod.get("status", {}).get("phase") == "Failed"]
    return {_index(pod): f"pod {_name(pod)} failed: {_why(pod, 'terminated')}" for pod in failed}


def waiting_pods(said: dict[str, Any]) -> dict[int, str]:
    """As `failed_pods`, of those that have not begun: what they wait for, if the cluster says."""
    waiting = [pod for pod in said["items"] if pod.get("status", {}).get("phase") == "Pending"]
    return {_index(pod): f"pod {_name(pod)} waits: {_why(pod, 'waiting')}" for pod in waiting}


def _why(pod: dict[str, Any], kind: str) -> str:
    """In the words of the pod, of its container in the state `kind`, or of what did not hold."""
    status = pod["status"]
    states = [each.get("state", {}).get(kind, {}) for each in status.get("containerStatuses", [])]
    unmet = [each for each in status.get("conditions", []) if each.get("status") == "False"]
    for said in (status, *states, *unmet):
        found = [str(said[key]).strip() for key in ("reason", "message") if said.get(key)]
        if found:
            # A message may be the end of a log.
            return ": ".join(each.splitlines()[-1][:300] for each in found if each)
    return "see `kubectl describe` and `kubectl logs`"


def _name(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["name"])


def _index(pod: dict[str, Any]) -> int:
    return int(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])


def _require_mounted(place: Path, mount: Path) -> None:
    if not place.resolve().is_relative_to(mount):
        raise SiloOperatorError(
            "home of the silo for Kubernetes",
            expected=f"a directory below {mount}, where pods see the claim",
            found=str(place.resolve()),
            action="move the home there, or correct mount in [training.nodes.kubernetes]",
        )
