"""The server's side: a round of one silo after the other, timed from the message to its reply.

Replies are looked for every 0.2 s, not every 3 s as Flower's own loop does, and an adapter travels
as one array, because Flower sends every array in a request of its own; both favour Flower.
"""

import json
import time
from pathlib import Path

from flwr.app import Array, ArrayRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp
from plain_training import packed, start_of, steps_seconds

QUIET_SECONDS = 5.0
"""Between rounds, not timed: the silo is polling again when the next round begins."""
LOOK_SECONDS = 0.2

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds and leave overhead.json in the folder."""
    folder = Path(str(context.run_config["folder"]))
    while not (node_ids := list(grid.get_node_ids())):
        time.sleep(LOOK_SECONDS)
    adapter, rounds = packed(start_of(folder)), []
    for _ in range(int(context.run_config["rounds"])):
        time.sleep(QUIET_SECONDS)
        content = RecordDict({"arrays": ArrayRecord({"adapter": Array(adapter)})})
        began = time.perf_counter()
        sent = list(grid.push_messages([Message(content, node_ids[0], MessageType.TRAIN)]))
        while not (replies := list(grid.pull_messages(sent))):
            time.sleep(LOOK_SECONDS)
        seconds = time.perf_counter() - began
        adapter = replies[0].content["arrays"]["adapter"].numpy()
        steps = steps_seconds(folder)
        rounds.append({"seconds": seconds - steps, "steps_seconds": steps})
    (folder / "overhead.tmp").write_text(json.dumps(rounds))
    (folder / "overhead.tmp").rename(folder / "overhead.json")
