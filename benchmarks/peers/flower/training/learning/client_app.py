"""The silo's side: Flower starts it anew for every message, so it loads the model every time."""

from pathlib import Path

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from plain_training import PlainTraining, packed, start_of, unpacked

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train from the adapter that came, and send the new one."""
    folder = Path(str(context.run_config["folder"]))
    values = message.content["arrays"]["adapter"].numpy()
    adapter = PlainTraining(folder).train(unpacked(values, start_of(folder)))
    arrays = ArrayRecord({"adapter": Array(packed(adapter))})
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
