"""The silo's side for `round.py --supernodes`: Flower starts it anew for every message."""

from adapters import silo_adapter, silo_weight
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Return this silo's adapter and its number of records."""
    silo = int(context.node_config["silo"])
    arrays = ArrayRecord({name: Array(values) for name, values in silo_adapter(silo).items()})
    metrics = MetricRecord({"num-examples": silo_weight(silo)})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
