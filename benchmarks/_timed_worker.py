"""A worker that notes when its tasks come; prints `ready`, and at its end a JSON object of them."""

from __future__ import annotations

import argparse
import json
import time

from runkon_client import Task, Worker


def main() -> None:
    """Work until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    arguments = parser.parse_args()
    worker = Worker(arguments.address, concurrency=256)
    arrived: dict[str, float] = {}

    @worker.action("noop")
    async def noop(task: Task) -> None:
        """Note when it came."""
        arrived.setdefault(task.id, time.time())

    print("ready", flush=True)
    worker.run_forever()
    print(json.dumps(arrived), flush=True)


if __name__ == "__main__":
    main()
