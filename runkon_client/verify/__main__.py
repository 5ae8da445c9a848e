"""`python -m runkon_client.verify KIND`: one process of the load."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
from pathlib import Path

from runkon_client.verify.callers import Caller
from runkon_client.verify.histories import History
from runkon_client.verify.rogues import Rogue
from runkon_client.verify.workers import SteadyWorker


def main() -> None:
    """Run the process that the arguments ask for until its standard input ends."""
    parser = argparse.ArgumentParser(prog="runkon_client.verify", description=__doc__)
    parser.add_argument("kind", choices=["caller", "worker", "rogue"])
    parser.add_argument("--name", required=True, help="of this process, in all it writes")
    parser.add_argument("--address", required=True, help="HOST:PORT to connect to")
    parser.add_argument("--second", default="", help="another HOST:PORT, for second readers")
    parser.add_argument("--folder", required=True, type=Path, help="where histories are written")
    parser.add_argument("--seed", required=True, type=int, help="of its decisions")
    parser.add_argument("--live", default=4, type=int, help="runs of a caller at a time")
    parser.add_argument("--queue", default=[], action="append", help="that a worker serves")
    parser.add_argument("--lease", default=3.0, type=float, help="seconds a task is leased for")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    with History(chosen.folder, chosen.name) as history:
        asyncio.run(_run(chosen, history))


async def _run(chosen: argparse.Namespace, history: History) -> None:
    """Everything is made in the event loop that it lives in."""
    address, seed = chosen.address, chosen.seed
    match chosen.kind:
        case "caller":
            path: Path = chosen.folder / "programs.json"
            book = json.loads(await asyncio.to_thread(path.read_text, encoding="utf-8"))
            caller = Caller(history, address, chosen.second or address, seed=seed)
            await caller.run(book, live=chosen.live)
        case "worker":
            await SteadyWorker(history, address, seed=seed, queues=chosen.queue).run()
        case _:
            lease_s, queues = chosen.lease, chosen.queue
            await Rogue(history, address, seed=seed, lease_s=lease_s, queues=queues).run()


if __name__ == "__main__":
    main()
