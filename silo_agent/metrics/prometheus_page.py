"""Prometheus metrics on a port of loopback: made when the page is asked for, of the last moment."""

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, get_args

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.program_version import program_version
from data_contracts.protocol.records.status import Phase
from infra.loopback import LOOPBACK
from silo_agent.metrics.readings import Moment

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

    from prometheus_client.core import Metric

log = logging.getLogger("silo-agent")

Ranks = Callable[[], Sequence[int]]
"""Resident memory of each rank that there is now, in bytes."""


class PrometheusPage:
    """http://127.0.0.1:PORT/metrics for one silo, in the words of the status."""

    def __init__(self, port: int, silo: str, federation: str, ranks: Ranks) -> None:
        self._port, self._ranks = port, ranks
        self._labels = {"silo": silo, "federation": federation, "version": program_version()}
        self._last: Moment | None = None
        self._losses: dict[str, float] = {}
        self._server: WSGIServer | None = None

    def start(self) -> None:
        """Serve the page; raises SiloOperatorError when the port cannot be had."""
        from prometheus_client import CollectorRegistry, start_http_server

        registry = CollectorRegistry()
        registry.register(self)
        try:
            self._server, _ = start_http_server(self._port, LOOPBACK, registry)
        except OSError as error:
            raise _not_to_be_had(self._port, error) from None
        log.info("metrics are on http://%s:%d/metrics", LOOPBACK, self._port)

    def show(self, moment: Moment) -> None:
        """Have the page say so; losses are kept as long as the attempt is the same."""
        # A new dictionary each time: a reader of the page may be in the middle of the old one.
        same = self._last is not None and _attempt(self._last) == _attempt(moment)
        losses = dict(self._losses) if same else {}
        if moment.part is not None and moment.readings.loss is not None:
            losses[moment.part] = moment.readings.loss
        self._losses, self._last = losses, moment

    def close(self) -> None:
        """Give the port back."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def collect(self) -> "Iterator[Metric]":
        """What prometheus-client asks for each time that somebody reads the page."""
        from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

        last, losses = self._last, self._losses
        yield InfoMetricFamily("consortia_agent", "The agent of this silo.", self._labels)
        for name, words, value in (*_of_ranks(self._ranks()), *_of_moment(last)):
            yield GaugeMetricFamily(f"consortia_{name}", words, value)
        loss = GaugeMetricFamily(
            "consortia_loss", "Newest loss, in nats per answer token.", labels=["part"]
        )
        for part, value in losses.items():
            loss.add_metric([part], value)
        phase = GaugeMetricFamily("consortia_phase", "1 for what it does now.", labels=["phase"])
        for name in get_args(Phase):
            phase.add_metric([name], float(last is not None and last.phase == name))
        yield from (loss, phase)


def require_port(port: int) -> None:
    """Raise SiloOperatorError when the page could not have its port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        # As the page's own server does it: a port that was given back a moment ago is free.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((LOOPBACK, port))
            trial.listen()
        except OSError as error:
            raise _not_to_be_had(port, error) from None


def _not_to_be_had(port: int, error: OSError) -> SiloOperatorError:
    return SiloOperatorError(
        "prometheus_port in [metrics] of silo-agent.toml",
        expected=f"port {port} of {LOOPBACK} to be free",
        found=error.strerror or type(error).__name__,
        action="end what listens there, or name another port",
    )


Gauge = tuple[str, str, float]


def _of_ranks(memory: Sequence[int]) -> list[Gauge]:
    largest = max(memory, default=0)
    return [
        ("rank_processes", "Ranks in memory, at work or idle.", len(memory)),
        ("rank_memory_bytes", "Resident memory of all ranks.", sum(memory)),
        ("rank_memory_largest_bytes", "Resident memory of the rank that holds most.", largest),
    ]


def _of_moment(last: Moment | None) -> list[Gauge]:
    """What is known of the last moment; what was not measured has no line."""
    if last is None:
        return []
    known: list[tuple[str, str, float | None]] = [
        ("round", "The round it takes part in.", last.round),
        ("attempt", "The attempt at that round.", last.attempt),
        ("step", "Steps that are done, of the phase.", last.step),
        ("steps", "Steps of the phase; 0 where nobody knows.", last.steps),
        ("tokens_per_second", "Tokens per second.", last.readings.tokens_per_second),
        ("left_seconds", "Seconds that the phase still takes.", last.readings.eta_seconds),
        ("gpu_memory_bytes", "Most on the first rank's GPU.", last.readings.gpu_memory_bytes),
        ("last_report_timestamp_seconds", "When it last said so.", last.at.timestamp()),
    ]
    return [(name, words, value) for name, words, value in known if value is not None]


def _attempt(moment: Moment) -> tuple[str, int, int]:
    return moment.run, moment.round, moment.attempt
