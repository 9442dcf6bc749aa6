"""Some silos in one process, each with its own connection to the SuperLink.

A real SuperNode looks for work every 3 s and starts a Python process for every message. These
silos hold their adapters in memory, look every 0.2 s and use the SuperNode's own connection
(`http_request_response`) and object pushes, so what is timed is encoding and transport. That
favours Flower by the start of a process, a second hop and up to 3 s.
"""

import argparse
import sys
import threading
import time
from functools import partial
from pathlib import Path

from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import (
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supernode.fleet_http_connection import http_request_response

sys.path.append(str(Path(__file__).resolve().parents[1]))
from adapters import Adapter, packed, silo_adapter
from decode_and_merge import reply_content

POLL_SECONDS = 0.2
QUIET_SECONDS = 3.0
"""After a reply, as a SuperNode: idle silos must not load the SuperLink while others send."""


def serve(address: str, silo: int, adapter: Adapter) -> None:
    """Answer every instruction with the adapter until the process is ended."""
    with http_request_response(address, insecure=True) as connection:
        _, receive, send, _, _, pull_object, push_object, confirm = connection
        while True:
            received = receive()
            if received is None:
                time.sleep(POLL_SECONDS)
                continue
            header, tree = received
            run_id = header.metadata.run_id
            instruction = pull_and_inflate_object_from_tree(
                tree, partial(pull_object, run_id), partial(confirm, run_id), return_type=Message
            )
            instruction.metadata.__dict__["_message_id"] = header.metadata.message_id
            reply = Message(reply_content(silo, adapter), reply_to=instruction)
            with no_object_id_recompute():
                reply.metadata.__dict__["_message_id"] = reply.object_id
                missing, session_id = send(reply, get_object_tree(reply), 0.0)
                push_objects(
                    get_all_nested_objects(reply),
                    partial(push_object, run_id, session_id),
                    object_ids_to_push=missing,
                )
            time.sleep(QUIET_SECONDS)


def main() -> None:
    """Serve silos first to last - 1, one thread each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--last", type=int, required=True)
    parser.add_argument("--packed", action="store_true")
    options = parser.parse_args()
    threads = []
    for silo in range(options.first, options.last):
        adapter = packed(silo_adapter(silo)) if options.packed else silo_adapter(silo)
        work = partial(serve, options.address, silo, adapter)
        threads.append(threading.Thread(target=work, daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
