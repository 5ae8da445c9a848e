"""What is told to callers and workers in other languages is true: retry policy, lock files."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
import pytest

from runkon.v1 import runs_pb2
from support.client_programs import LANGUAGES, MADE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT: Final = Path(__file__).resolve().parents[2]
CLIENTS: Final = ROOT / "examples/clients"
CONFIG: Final = (CLIENTS / "service-config.json").read_text(encoding="utf-8")
ATTEMPTS_MAX: Final = 5
HOST: Final = re.compile(r"https?://([\w.-]+)")
HOSTS: Final = frozenset({"maven.apache.org", "www.w3.org", "buf.build", "{address}"})
"""Of schemas and of documents."""


class Away:
    """A server of StartRun that fails a few times, then answers; remembers what it was asked."""

    def __init__(self, times: int, code: grpc.StatusCode) -> None:
        self.times = times
        self.code = code
        self.asked: list[str] = []

    async def start_run(
        self, request: runs_pb2.StartRunRequest, context: Any
    ) -> runs_pb2.StartRunResponse:
        self.asked.append(request.request_id)
        if len(self.asked) <= self.times:
            await context.abort(self.code, "away")
        return runs_pb2.StartRunResponse(started=True)

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server is given to serve it."""
        method = grpc.unary_unary_rpc_method_handler(
            self.start_run,
            runs_pb2.StartRunRequest.FromString,
            runs_pb2.StartRunResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler("runkon.v1.RunService", {"StartRun": method})


@contextlib.asynccontextmanager
async def calling(service: Away) -> AsyncIterator[grpc.aio.Channel]:
    """A channel with the documented service config."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((service.handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    options = [("grpc.enable_http_proxy", 0), ("grpc.service_config", CONFIG)]
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            yield channel
    finally:
        await server.stop(0)


async def start(channel: grpc.aio.Channel, request_id: str) -> runs_pb2.StartRunResponse:
    """Call it once, as the caller sees it."""
    call = channel.unary_unary(
        "/runkon.v1.RunService/StartRun",
        runs_pb2.StartRunRequest.SerializeToString,
        runs_pb2.StartRunResponse.FromString,
    )
    answer: runs_pb2.StartRunResponse = await call(
        runs_pb2.StartRunRequest(request_id=request_id), timeout=60
    )
    return answer


async def test_the_retry_policy_repeats_a_call_with_its_request_id() -> None:
    """Four times away, then there: one call of the caller, the same id in all attempts."""
    service = Away(ATTEMPTS_MAX - 1, grpc.StatusCode.UNAVAILABLE)
    async with calling(service) as channel:
        answer = await start(channel, "once")

    assert answer.started
    assert service.asked == ["once"] * ATTEMPTS_MAX


@pytest.mark.parametrize(
    ("code", "attempts"),
    [(grpc.StatusCode.UNAVAILABLE, ATTEMPTS_MAX), (grpc.StatusCode.FAILED_PRECONDITION, 1)],
)
async def test_the_retry_policy_gives_up(code: grpc.StatusCode, attempts: int) -> None:
    """At once if trying again is of no use, and otherwise after the last attempt."""
    service = Away(99, code)
    async with calling(service) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await start(channel, "again")

    assert refused.value.code() is code
    assert len(service.asked) == attempts


def test_the_retry_policy_is_the_same_everywhere() -> None:
    """On the page and in Go word for word, elsewhere by its values; for every service there is."""
    page = (ROOT / "docs/any-language.md").read_text(encoding="utf-8")
    shown = page.partition("```json\n")[2].partition("```")[0]
    connection = (CLIENTS / "go/connection.go").read_text(encoding="utf-8")
    embedded = connection.partition("serviceConfig = `")[2].partition("`")[0]
    config = json.loads(CONFIG)
    policy = config["methodConfig"][0]["retryPolicy"]
    services = {name["service"] for name in config["methodConfig"][0]["name"]}
    contract = "\n".join(path.read_text("utf-8") for path in ROOT.glob("protos/runkon/v1/*.proto"))

    assert json.loads(shown) == json.loads(embedded) == config
    assert services == {
        f"runkon.v1.{each}" for each in re.findall(r"^service (\w+)", contract, re.MULTILINE)
    }
    for file in (
        "typescript/src/connection.ts",
        "java/src/main/java/dev/runkon/examples/greeting/Connection.java",
    ):
        text = (CLIENTS / file).read_text(encoding="utf-8")
        for value in (
            policy["initialBackoff"],
            policy["maxBackoff"],
            *policy["retryableStatusCodes"],
        ):
            assert f'"{value}"' in text, (file, value)


def test_clients_and_their_lock_files_name_no_registry() -> None:
    """Where packages come from is the builder's setting; that of crates is a name, not a host."""
    found = set()
    for language in LANGUAGES:
        for path in (CLIENTS / language.name).rglob("*"):
            if path.relative_to(CLIENTS).parts[1] in MADE or not path.is_file():
                continue
            text = path.read_text(encoding="utf-8").replace(
                "registry+https://github.com/rust-lang", ""
            )
            text = re.sub(r'"(?:url|funding)": "https?://[^"]*"', "", text)
            found |= {(path.name, host) for host in HOST.findall(text) if host not in HOSTS}

    assert found == set()


def test_every_client_is_on_the_page_of_the_examples() -> None:
    page = (CLIENTS / "README.md").read_text(encoding="utf-8")
    folders = {path.name for path in CLIENTS.iterdir() if path.is_dir()}

    assert folders == {language.name for language in LANGUAGES}
    assert set(re.findall(r"^\| \[(\w+)\]\(\1\) \|", page, re.MULTILINE)) == folders
