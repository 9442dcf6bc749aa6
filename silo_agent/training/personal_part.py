"""What a training of a personal adapter asks for and answers beyond any other: values, no torch."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from silo_agent.training.job_value import JobValue
from silo_agent.training.loss import Loss
from silo_agent.training.prompt_gate import PromptGate


class PersonalPart(JobValue):
    """Makes a training one of a personal adapter.

    The recipe's proximal term pulls towards `centre`; None: towards the initial adapter of the
    layout. `is_mixed`: it is used where a prompt looks like one of this silo's and the frozen
    adapter beside it alone elsewhere, by a gate that is chosen on records that are set aside.
    """

    centre: Path | None = None
    is_mixed: bool = False


class PersonalMeasures(JobValue):
    """Held-out losses of a personal adapter.

    `own`: used for every record. `frozen_alone`: of what acts beside it, without it. `used`: as it
    is meant to be used, which is `own` where nothing is mixed. `chosen_for` is the share of the
    held-out records for which `gate` takes the personal adapter, `set_aside` the number of training
    records that it was not trained on.
    """

    own: Loss
    used: Loss
    frozen_alone: Loss | None = None
    gate: PromptGate | None = None
    chosen_for: Annotated[float, Field(ge=0, le=1)] = 1.0
    set_aside: Annotated[int, Field(ge=0)] = 0
