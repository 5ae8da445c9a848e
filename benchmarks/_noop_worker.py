"""A worker of its own process whose only action does nothing; prints `ready` and works for ever."""

from __future__ import annotations

import argparse

from runkon_client import Task, Worker


def main() -> None:
    """Work until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--concurrency", type=int, default=64)
    arguments = parser.parse_args()
    worker = Worker(arguments.address, concurrency=arguments.concurrency)

    @worker.action("noop")
    async def noop(_: Task) -> None:
        """Nothing."""

    print("ready", flush=True)
    worker.run_forever()


if __name__ == "__main__":
    main()
