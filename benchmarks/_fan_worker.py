"""A worker of its own process that finds so many items and does nothing for each of them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from runkon_client import Task, Worker
from runkon_client.worker import Item

if TYPE_CHECKING:
    from runkon_client.worker import ItemsTask


def main() -> None:
    """Work until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=256)
    arguments = parser.parse_args()
    worker = Worker(arguments.address, concurrency=arguments.concurrency)

    @worker.items("numbers")
    async def numbers(_: ItemsTask) -> list[Item]:
        """Numbers from 0."""
        return [Item(id=str(number)) for number in range(arguments.items)]

    @worker.action("noop")
    async def noop(_: Task) -> None:
        """Nothing."""

    print("ready", flush=True)
    worker.run_forever()


if __name__ == "__main__":
    main()
