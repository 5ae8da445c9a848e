"""`runkon-server serve` and `dev` as processes, on real PostgreSQL."""

from __future__ import annotations

import signal
import socket
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import grpc
import psycopg
import pytest

from runkon.v1 import runs_pb2, runs_pb2_grpc
from runkon_server.api.health import LIVENESS, ask_health
from runkon_server.store.embedded import EmbeddedPostgres
from runkon_server.verify.ports import kept_port
from support.servers import runkon_server
from support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.servers import ServerProcess

LOOPBACK = ("--listen", "127.0.0.1:0")
SOURCE = "workflow hello { call echo }"


def health(address: str, name: str = "") -> str:
    """What the server says of itself; the name of the error if it does not answer."""
    try:
        return ask_health(address, name, timeout_s=30)
    except grpc.RpcError as error:
        return error.code().name


def start_run(address: str) -> str:
    """Start a run of one step that the server takes itself."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = runs_pb2_grpc.RunServiceStub(channel)
        answer = stub.StartRun(runs_pb2.StartRunRequest(source=SOURCE), timeout=60)
    run_id: str = answer.run.id
    return run_id


def events_of(address: str, run_id: str) -> list[str]:
    """Kinds of all events up to the end of the run."""
    kinds: list[str] = []
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = runs_pb2_grpc.RunServiceStub(channel)
        request = runs_pb2.StreamRunEventsRequest(run_id=run_id)
        for frame in stub.StreamRunEvents(request, timeout=60):
            kinds += [str(event.WhichOneof("payload")) for event in frame.events.events]
    return kinds


def metrics_of(server: ServerProcess) -> dict[str, float]:
    """Every sample by its name and labels."""
    port = server.records("metrics.started")[0]["port"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    samples = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return {name: float(value) for name, _, value in samples}


def test_a_replica_serves_and_stops(database: str) -> None:
    """It runs a workflow, counts it, and ends with 0 on SIGTERM."""
    arguments = ["serve", *LOOPBACK, "--metrics-port", "0"]
    with runkon_server(arguments, {"RUNKON_DATABASE_URL": database}) as server:
        address = server.started()
        ready = health(address)
        kinds = events_of(address, start_run(address))
        samples = metrics_of(server)
        code = server.stop()

    assert ready == "SERVING"
    assert (kinds[0], kinds[-1]) == ("run_started", "run_finished")
    assert samples["runkon_runs_started_total"] == 1
    assert samples['runkon_runs_finished_total{status="completed"}'] == 1
    assert samples["runkon_database_up"] == 1
    assert code == 0
    assert server.records("server.stopped")[0]["failed"] is False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_open_streams_with_advice(database: str, number: signal.Signals) -> None:
    """A stream that waits ends UNAVAILABLE, not with the connection."""
    with runkon_server(["serve", *LOOPBACK], {"RUNKON_DATABASE_URL": database}) as server:
        address = server.started()
        with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            stub = runs_pb2_grpc.RunServiceStub(channel)
            started = stub.StartRun(
                runs_pb2.StartRunRequest(source="workflow w { call nobody }"), timeout=60
            )
            stream = stub.StreamRunEvents(
                runs_pb2.StreamRunEventsRequest(run_id=started.run.id), timeout=60
            )
            assert next(stream).HasField("header")
            server.process.send_signal(number)
            with pytest.raises(grpc.RpcError) as failed:
                for _ in stream:
                    pass
        code = server.ended()

    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert failed.value.details() == "this replica is shutting down"
    assert code == 0


@pytest.fixture
def mute() -> Iterator[tuple[socket.socket, str]]:
    """A listener that never answers, and the URL of the database that it might be."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        port = listener.getsockname()[1]
        options = "sslmode=disable&connect_timeout=3"  # a stop waits for the end of a handshake
        yield listener, f"postgresql://nobody@127.0.0.1:{port}/nothing?{options}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_replica_that_waits_for_its_database_stops_at_once(
    database: str, mute: tuple[socket.socket, str], number: signal.Signals
) -> None:
    """Its schema is read, its first session is not answered; it does not wait for the refusal."""
    listener, url = mute
    environment = {"RUNKON_DATABASE_URL": url, "RUNKON_DATABASE_DIRECT_URL": database}
    with runkon_server(["serve", *LOOPBACK], environment) as server:
        session, _ = listener.accept()
        with session:
            code = server.stop(number)

    assert code == 0
    assert [record["signal"] for record in server.records("server.stopping")] == [number.name]
    assert server.records("server.stopped")


@pytest.mark.parametrize("migrates", ["--migrate", "--no-migrate"])
def test_a_replica_that_waits_for_its_schema_stops_at_once(
    mute: tuple[socket.socket, str], migrates: str
) -> None:
    """Before there is an event loop that could hear of the signal."""
    listener, url = mute
    with runkon_server(["serve", *LOOPBACK, migrates], {"RUNKON_DATABASE_URL": url}) as server:
        session, _ = listener.accept()
        with session:
            code = server.stop()

    assert code == 0
    assert [record["signal"] for record in server.records("server.stopping")] == ["SIGTERM"]


def test_a_schema_that_is_not_there_is_refused_with_the_remedy(empty_database: str) -> None:
    """`serve` names `migrate`; `migrate` makes it; then `serve` starts."""
    environment = {"RUNKON_DATABASE_URL": empty_database}
    with runkon_server(["serve", *LOOPBACK], environment) as refused:
        refusal = refused.ended()
    with runkon_server(["migrate"], environment) as migrating:
        migrated = migrating.ended()
    with runkon_server(["serve", *LOOPBACK], environment) as server:
        server.started()

    assert refusal == 1
    assert "runkon-server migrate" in "\n".join(refused.said)
    assert migrated == 0


def test_serve_migrates_when_told_to(empty_database: str) -> None:
    """With --migrate an empty database is enough."""
    environment = {"RUNKON_DATABASE_URL": empty_database}
    with runkon_server(["serve", *LOOPBACK, "--migrate"], environment) as server:
        assert health(server.started()) == "SERVING"


def test_a_schema_that_has_left_this_release_behind_is_refused(database: str) -> None:
    """Whether migrating is wished or not: there is no way back."""
    with psycopg.connect(database) as conn:
        conn.execute("UPDATE runkon_schema_version SET version_num = '9999'")
        conn.execute("UPDATE settings SET value = '9998' WHERE name = 'schema_oldest_compatible'")
    environment = {"RUNKON_DATABASE_URL": database}
    for more in ([], ["--migrate"]):
        with runkon_server(["serve", *LOOPBACK, *more], environment) as server:
            code = server.ended()

        assert code == 1
        assert "install the newer release" in "\n".join(server.said)


def test_a_newer_schema_that_only_adds_is_served(database: str) -> None:
    """A replica of the release before may restart during an upgrade; it changes nothing."""
    with psycopg.connect(database) as conn:
        conn.execute("UPDATE runkon_schema_version SET version_num = '9999'")
    environment = {"RUNKON_DATABASE_URL": database}
    with runkon_server(["serve", *LOOPBACK, "--migrate"], environment) as server:
        assert health(server.started()) == "SERVING"
        assert server.records("schema.newer")[0]["schema"] == "9999"
    with runkon_server(["migrate"], environment) as migrating:
        assert migrating.ended() == 0

    assert migrating.printed == ["the schema is 9999"]


def test_a_port_that_is_taken_is_named(database: str) -> None:
    """No second server shares the port in silence."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with runkon_server(
            ["serve", "--listen", address], {"RUNKON_DATABASE_URL": database}
        ) as server:
            code = server.ended()

    assert code == 1
    assert address in "\n".join(server.said)


def test_a_unix_socket_serves(database: str, tmp_path: Path) -> None:
    """Beside a port; a second server does not take the socket away."""
    path = f"unix:{tmp_path}/runkon.sock"
    environment = {"RUNKON_DATABASE_URL": database}
    with runkon_server(["serve", "--listen", path, *LOOPBACK], environment) as server:
        server.started()
        ready = health(path)
        with runkon_server(["serve", "--listen", path], environment) as second:
            code = second.ended()
        still_ready = health(path)

    assert (ready, still_ready) == ("SERVING", "SERVING")
    assert code == 1
    assert "somebody else does" in "\n".join(second.said)


def test_strangers_are_let_in_with_a_loud_word(database: str) -> None:
    """--insecure opens a port for everybody and warns about it."""
    arguments = ["serve", "--listen", "0.0.0.0:0", "--insecure"]
    with runkon_server(arguments, {"RUNKON_DATABASE_URL": database}) as server:
        server.started()

    assert server.records("server.insecure")[0]["level"] == "warning"


def test_dev_needs_nothing_else(open_folder: Path) -> None:
    """It makes a database, says where it listens, keeps the data over a restart."""
    arguments = ["dev", "--data-dir", str(open_folder / "data"), "--port", "0"]
    found: list[list[str]] = []
    run_id = ""
    for _ in range(2):
        with runkon_server([*arguments, "--log-format", "json"]) as server:
            address = server.started()
            wait_until(lambda: server.printed, "the line that says it is ready")
            assert server.printed == [f"ready on {address}"]
            run_id = run_id or start_run(address)
            found.append(events_of(address, run_id))
            assert server.stop(signal.SIGINT) == 0

    assert found[0] == found[1]
    assert found[0][-1] == "run_finished"


@pytest.fixture
def postgres(open_folder: Path) -> Iterator[EmbeddedPostgres]:
    """A database to stop and start, whose port nobody else gets meanwhile."""
    with kept_port() as port:
        server = EmbeddedPostgres(open_folder / "data", port=port, fast=True)
        yield server
        server.stop()


def test_a_lost_database_shows_and_heals(postgres: EmbeddedPostgres) -> None:
    """Readiness goes and comes by itself, liveness stays, and the server serves again."""
    environment = {"RUNKON_DATABASE_URL": postgres.start()}
    with runkon_server(["serve", *LOOPBACK, "--migrate"], environment) as server:
        address = server.started()
        postgres.stop()
        wait_until(lambda: health(address) == "NOT_SERVING", "the loss shows")
        alive = health(address, LIVENESS)
        assert postgres.start() == environment["RUNKON_DATABASE_URL"]
        wait_until(lambda: health(address) == "SERVING", "it is ready again")
        kinds = events_of(address, start_run(address))
        code = server.stop()

    assert alive == "SERVING"
    assert kinds[-1] == "run_finished"
    assert code == 0


def test_a_database_that_comes_late_is_awaited(postgres: EmbeddedPostgres) -> None:
    """The server tells why it waits, without the password, and starts when it is there."""
    dsn = postgres.start()
    postgres.stop()
    with runkon_server(["serve", *LOOPBACK, "--migrate"], {"RUNKON_DATABASE_URL": dsn}) as server:
        wait_until(lambda: server.records("database.awaited"), "it says that it waits")
        assert postgres.start() == dsn
        ready = health(server.started())

    assert ready == "SERVING"
    assert str(urlsplit(dsn).password) not in str(server.log)


def test_sigusr1_has_a_replica_log_what_it_waits_for(database: str) -> None:
    """Every task with its place, and the thread that renews leases; the server goes on."""
    with runkon_server(["serve", *LOOPBACK], {"RUNKON_DATABASE_URL": database}) as server:
        address = server.started()

        server.process.send_signal(signal.SIGUSR1)

        def threads() -> set[object]:
            return {record["thread"] for record in server.records("stack.of_thread")}

        wait_until(lambda: "runkon-lessor" in threads(), "the lessor's stack is logged")
        places = "".join(str(record["awaits"]) for record in server.records("stack.of_task"))
        assert "runtime/committer.py" in places
        assert health(address) == "SERVING"
        assert server.stop() == 0
