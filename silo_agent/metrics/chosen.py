"""The exporters that a silo's configuration asks for; what it does not ask for is not imported."""

import importlib.util

from data_contracts.errors import SiloOperatorError
from silo_agent.config import MetricsSection, SiloConfig
from silo_agent.metrics.metrics import Exporter, InBackground, Metrics
from silo_agent.metrics.mlflow_log import MlflowLog
from silo_agent.metrics.prometheus_page import PrometheusPage, Ranks, require_port
from silo_agent.metrics.tensorboard_log import TensorBoardLog

PACKAGE, EXTRA = "prometheus_client", "metrics"
"""What the page needs, and the extra of this package that brings it; the others need nothing."""


def require_metrics(section: MetricsSection, *, with_port: bool) -> None:
    """Raise SiloOperatorError where the page lacks its package, or with `with_port` its port."""
    if section.prometheus_port is None:
        return
    if importlib.util.find_spec(PACKAGE) is None:
        raise SiloOperatorError(
            "prometheus_port in [metrics] of silo-agent.toml",
            expected=f"the Python package {PACKAGE}",
            found="none",
            action=f"pip install 'consortia[{EXTRA}]', or remove the setting",
        )
    if with_port:
        require_port(section.prometheus_port)


def chosen_metrics(config: SiloConfig, ranks: Ranks) -> Metrics:
    """One exporter for each setting of `[metrics]`; none of them has started."""
    section, exporters = config.metrics, list[Exporter]()
    if section.prometheus_port is not None:
        port = section.prometheus_port
        exporters.append(PrometheusPage(port, config.silo, config.federation, ranks))
    if section.tensorboard is not None:
        log = TensorBoardLog(config.path(section.tensorboard))
        exporters.append(InBackground("TensorBoard", log))
    if section.mlflow is not None:
        exporters.append(
            InBackground("MLflow", MlflowLog(section.mlflow, f"{config.federation} {config.silo}"))
        )
    return Metrics(exporters)
