"""For tests of workflows and workers: a server to start in a test, a clock to move, runs to replay.

with local_server() as server:
    client = SyncClient(server.address, namespace=server.new_namespace())
    run = client.start_run(source=…)
    server.skip(timedelta(days=30))
    assert run.wait().status is RunStatus.COMPLETED
"""

from runkon_client.testing.local import LocalServer, LocalServerError, local_server
from runkon_client.testing.recording import Recording, RecordingError, record
from runkon_client.testing.replaying import Replay, replay

__all__ = [
    "LocalServer",
    "LocalServerError",
    "Recording",
    "RecordingError",
    "Replay",
    "local_server",
    "record",
    "replay",
]
