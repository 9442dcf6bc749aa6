"""What all parts of a contract's terms have in common."""

from pydantic import ConfigDict
from pydantic.alias_generators import to_camel

from data_contracts.protocol.wire_types import Part


class Terms(Part):
    """A part of the terms, written in camelCase as ODCS writes its keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, populate_by_name=False
    )
