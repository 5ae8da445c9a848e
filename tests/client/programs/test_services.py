"""Services as actions, against a real HTTP server on loopback, which each test allows."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from client.workers import lease_of, reported

from runkon.v1 import workers_pb2
from runkon_client import Actions
from runkon_client.worker.http import Egress, Service, add_service
from runkon_server.verify.ports import kept_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Reply(NamedTuple):
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@contextlib.contextmanager
def serving(answer: Callable[[Asked], Reply]) -> Iterator[tuple[str, list[Asked]]]:
    """A server that answers as told; gives its address and what it was asked."""
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked.append(Asked(self.command, self.path, headers, self.rfile.read(length)))
            reply = answer(asked[-1])
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            with contextlib.suppress(OSError):  # whoever asked has had enough
                self.wfile.write(reply.body)

        do_GET = do_POST  # noqa: N815 - the base class dictates the name

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def asking(url: str, **fields: Any) -> workers_pb2.TaskReport:
    """What a worker reports whose action is a service."""
    actions = Actions()
    values: dict[str, Any] = {"egress": Egress(allowed=LOOPBACK), **fields}
    add_service(actions, "act", Service(url=url, **values))
    lease = lease_of(
        workers_pb2.TASK_KIND_ACTION, "act", idempotency_key="r/b.0001", fence=7, inputs={"a": "b"}
    )
    return await reported(actions, lease)


async def test_a_service_gets_the_task_and_its_idempotency_key() -> None:
    def answer(_: Asked) -> Reply:
        return Reply(body=b'{"markers": ["ok"], "context": "done", "n": 1}')

    with serving(answer) as (address, asked):
        report = await asking(f"http://{address}/hook?x=1", headers={"Authorization": "Bearer t"})

    (request,) = asked
    document = json.loads(request.body)
    assert (request.method, request.path) == ("POST", "/hook?x=1")
    assert request.headers["idempotency-key"] == "r/b.0001"
    assert request.headers["x-runkon-fence"] == "7"
    assert request.headers["authorization"] == "Bearer t"
    assert request.headers["host"] == address
    assert (document["inputs"], document["run_id"]) == ({"a": "b"}, "r")
    assert (list(report.result.markers), report.result.context) == (["ok"], "done")


@pytest.mark.parametrize(
    ("status", "retryable"), [(500, True), (503, True), (429, True), (400, False), (409, False)]
)
async def test_a_status_says_whether_another_attempt_may_help(
    status: int, *, retryable: bool
) -> None:
    with serving(lambda _: Reply(status, b"no room")) as (address, _):
        failure = (await asking(f"http://{address}/?token=secret")).failure

    assert failure.message == f"http://{address}/ answered {status}: no room"
    assert (failure.code, failure.retryable) == ("HTTP_STATUS", retryable)


async def test_42_without_leave_this_machine_is_not_reached() -> None:
    with serving(lambda _: Reply()) as (address, asked):
        failure = (await asking(f"http://{address}/", egress=Egress())).failure

    assert (failure.code, failure.retryable, asked) == ("EGRESS_DENIED", False, [])


async def test_43_the_address_that_was_looked_at_is_the_one_that_is_asked() -> None:
    """A name that leads elsewhere the second time is not asked for a second time."""
    lookups: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        lookups.append(f"{host}:{port}")
        return ["127.0.0.1"]

    with serving(lambda _: Reply()) as (address, asked):
        port = address.rpartition(":")[2]
        egress = Egress(allowed=LOOPBACK, resolve=resolve)
        report = await asking(f"http://a.example:{port}/", egress=egress)

    assert report.WhichOneof("outcome") == "result"
    assert lookups == [f"a.example:{port}"]
    assert asked[0].headers["host"] == f"a.example:{port}"


async def test_44_every_hop_of_a_redirect_is_looked_at() -> None:
    """The second one leads to where nobody may go."""

    def answer(_: Asked) -> Reply:
        return Reply(307, headers={"Location": "http://10.0.0.1/secret"})

    with serving(answer) as (address, asked):
        failure = (await asking(f"http://{address}/")).failure

    assert (failure.code, len(asked)) == ("EGRESS_DENIED", 1)


async def test_44_headers_of_the_caller_stay_with_their_origin() -> None:
    """All of them: a service's key goes by many names. What tells repetitions apart goes along."""
    headers = {"Authorization": "Bearer t", "Cookie": "c", "X-Api-Key": "k"}
    with serving(lambda _: Reply()) as (other, elsewhere):

        def answer(request: Asked) -> Reply:
            if request.path == "/":
                return Reply(308, headers={"Location": "/same"})
            return Reply(307, headers={"Location": f"http://{other}/other"})

        with serving(answer) as (address, asked):
            report = await asking(f"http://{address}/", headers=headers)

    assert report.WhichOneof("outcome") == "result"
    assert [each.headers.get("authorization") for each in asked] == ["Bearer t", "Bearer t"]
    assert [each.headers.get("x-api-key") for each in asked] == ["k", "k"]
    (last,) = elsewhere
    assert (last.method, last.path, last.body) == ("POST", "/other", asked[0].body)
    assert last.headers.keys().isdisjoint({"authorization", "cookie", "x-api-key"})
    assert last.headers["idempotency-key"] == asked[0].headers["idempotency-key"]


async def test_see_other_is_read_and_not_posted_to() -> None:
    def answer(request: Asked) -> Reply:
        if request.method == "POST":
            return Reply(303, headers={"Location": "/result"})
        return Reply(body=b"found")

    with serving(answer) as (address, asked):
        report = await asking(f"http://{address}/")

    assert report.result.result_text == "found"
    assert [(each.method, each.body == b"") for each in asked] == [("POST", False), ("GET", True)]


async def test_44_redirects_end() -> None:
    with serving(lambda _: Reply(307, headers={"Location": "/again"})) as (address, asked):
        failure = (await asking(f"http://{address}/")).failure

    assert (failure.code, failure.retryable, len(asked)) == ("HTTP_ANSWER", False, 4)


@pytest.mark.parametrize(
    "location", ["", "ftp://a.example/", "http://u@a.example/", "http://[", "\\\\x"]
)
async def test_a_redirect_to_no_url_is_a_final_failure(location: str) -> None:
    def answer(request: Asked) -> Reply:
        return Reply(302, headers={"Location": location} if request.method == "POST" else {})

    with serving(answer) as (address, _):
        failure = (await asking(f"http://{address}/")).failure

    assert (failure.code, failure.retryable) == ("HTTP_ANSWER", False)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"x" * ((1 << 20) + 1)),
        Reply(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}),
    ],
)
async def test_45_an_answer_that_is_too_large_or_compressed_is_refused(reply: Reply) -> None:
    with serving(lambda _: reply) as (address, _):
        failure = (await asking(f"http://{address}/")).failure

    assert (failure.code, failure.retryable) == ("HTTP_ANSWER", False)


async def test_45_endless_headers_are_a_failure() -> None:
    headers = {f"X-{number}": "y" * 100 for number in range(3_000)}
    with serving(lambda _: Reply(headers=headers)) as (address, _):
        failure = (await asking(f"http://{address}/")).failure

    assert (failure.code, failure.retryable) == ("HTTP_UNREACHABLE", True)


async def test_45_a_service_that_does_not_answer_in_time_is_given_up() -> None:
    released = threading.Event()

    def answer(_: Asked) -> Reply:
        released.wait(60)
        return Reply()

    with serving(answer) as (address, _):
        try:
            failure = (await asking(f"http://{address}/", timeout_s=0.2)).failure
        finally:
            released.set()

    assert (failure.code, failure.retryable) == ("HTTP_UNREACHABLE", True)
    assert "0.2 s" in failure.message


async def test_a_service_that_is_not_there_may_be_later() -> None:
    with kept_port() as port:
        failure = (await asking(f"http://127.0.0.1:{port}/")).failure

    assert (failure.code, failure.retryable) == ("HTTP_UNREACHABLE", True)


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with serving(lambda _: Reply(body=b"here")) as (address, _):
        report = await asking(f"http://{address}/")

    assert report.result.result_text == "here"


@pytest.mark.parametrize(
    "name", ["Host", "Transfer-Encoding", "content-length", "Connection", "Idempotency-Key"]
)
def test_46_headers_of_the_transport_are_not_the_callers(name: str) -> None:
    with pytest.raises(ValueError, match="set by the worker"):
        Service(url="https://a.example/", headers={name: "x"})


@pytest.mark.parametrize("headers", [{"X\r\nY": "a"}, {"X": "a\r\nY: b"}, {"": "a"}, {"X": "ü"}])
def test_46_a_header_cannot_smuggle_another(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"no name|printable"):
        Service(url="https://a.example/", headers=headers)
