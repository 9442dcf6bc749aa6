"""Both sides of a round without training, as FLARE loads them from the job: server and silo.

FLARE writes the constructor arguments of these classes into the job and imports this file in the
server's and in every client's process.
"""

import json
import time
from copy import copy
from pathlib import Path
from typing import Any

import torch
from adapters import silo_adapter, silo_weight
from clock import reset_peak, status_mb
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLMetaKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.app_common.workflows.fedavg import FedAvg
from nvflare.app_opt.pt.decomposers import TensorDecomposer
from nvflare.fuel.utils import fobs
from safetensors.torch import save_file

QUIET_SECONDS = 5.0
"""Between rounds, not timed: every client is asking for tasks again when the next one begins."""

fobs.register(TensorDecomposer)


class TimedFedAvg(FedAvg):
    """FLARE's FedAvg, timed from sending the task to the written file.

    It sends one number instead of a global model and writes safetensors without fsync instead of
    FLARE's slower FOBS file; both favour FLARE.
    """

    def __init__(self, num_clients: int, num_rounds: int, directory: str) -> None:
        super().__init__(
            num_clients=num_clients,
            num_rounds=num_rounds,
            persistor_id="",
            save_filename="merged.safetensors",
            task_check_period=0.02,
        )
        self.directory = directory
        self._seconds: list[float] = []
        self._began = 0.0

    def load_model(self) -> FLModel:
        """A start of one number: nothing is trained."""
        return FLModel(params={"start": torch.zeros(1)})

    def send_model(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock and send the task."""
        time.sleep(QUIET_SECONDS)
        kwargs["data"] = FLModel(params={"start": torch.zeros(1)}, current_round=self.current_round)
        if not self._seconds:
            reset_peak(trim=True)
        self._began = time.perf_counter()
        super().send_model(*args, **kwargs)

    def save_model(self, model: FLModel) -> None:
        """Write the merged adapter, stop the clock; leave the figures after the last round."""
        directory = Path(self.directory)
        save_file(model.params, directory / "merged.safetensors")
        self._seconds.append(time.perf_counter() - self._began)
        if len(self._seconds) == self.num_rounds:
            figures = {"seconds": self._seconds, "peak_mb": status_mb("VmHWM")}
            (directory / "server.tmp").write_text(json.dumps(figures))
            (directory / "server.tmp").rename(directory / "server.json")


class MemoryExecutor(Executor):
    """A silo that holds its adapter in memory and returns it for every task."""

    def __init__(self) -> None:
        super().__init__()
        self._result: FLModel | None = None

    def execute(
        self,
        task_name: str,  # noqa: ARG002
        shareable: Shareable,  # noqa: ARG002
        fl_ctx: FLContext,
        abort_signal: Signal,  # noqa: ARG002
    ) -> Shareable:
        """The adapter and its number of records; made at the first task, which is not timed."""
        if self._result is None:
            silo = int(fl_ctx.get_identity_name().removeprefix("site-")) - 1
            adapter = silo_adapter(silo)
            self._result = FLModel(
                params_type=ParamsType.FULL,
                params={name: torch.from_numpy(values) for name, values in adapter.items()},
                meta={FLMetaKey.NUM_STEPS_CURRENT_ROUND: silo_weight(silo)},
            )
        # A filter puts what it makes of the parameters into the very dictionary that it is given.
        result = copy(self._result)
        result.params = dict(self._result.params)
        return FLModelUtils.to_shareable(result)
