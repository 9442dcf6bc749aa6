"""What a silo says of its leak check, where its data contract lets that out."""

from pydantic import Field

from data_contracts.protocol.wire_types import Count, DecimalString, Part


class LeakStatement(Part):
    """Of the adapter of one submission, to a hundredth.

    `records`: so many were measured on the side that has fewer, trained on or held out. `auc`: how
    well a score tells the two apart, `auc_low` the lower end of its 95 % interval; None of fewer
    than ten records. `repeated`: by how much the share of answers that come back word by word is
    higher for records that were trained on; None where the family of the model continues no text.
    """

    records: Count
    auc: DecimalString | None = Field(default=None, ge=0, le=1)
    auc_low: DecimalString | None = Field(default=None, ge=0, le=1)
    repeated: DecimalString | None = Field(default=None, ge=-1, le=1)
