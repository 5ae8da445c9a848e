"""Actions that are answered by a service: one POST with the task as JSON, and its answer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import httpx

from runkon_client.worker.actions import ActionError, FinalError, RetryableError
from runkon_client.worker.http.egress import Egress, EgressDeniedError, Target, parse_target
from runkon_client.worker.programs.document import describe
from runkon_client.worker.programs.output import read_output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runkon_client.worker.actions import ActionOutput, Actions
    from runkon_client.worker.task import Task

EGRESS_DENIED: Final = "EGRESS_DENIED"
UNREACHABLE: Final = "HTTP_UNREACHABLE"
BAD_STATUS: Final = "HTTP_STATUS"
BAD_ANSWER: Final = "HTTP_ANSWER"
_BODY_BYTES_MAX: Final = 1 << 20
_REDIRECTS_MAX: Final = 3
_QUOTED_CHARS: Final = 500
_OURS: Final = frozenset(
    {
        "host", "content-length", "transfer-encoding", "connection", "content-type", "te",
        "trailer", "upgrade", "expect", "accept-encoding", "keep-alive", "proxy-authorization",
        "proxy-connection", "idempotency-key", "x-runkon-fence",
    }
)  # fmt: skip
"""Headers that a caller has no say in: they are part of how a request is sent."""
_TEMPORARY: Final = frozenset({408, 425, 429})
_SEE_OTHER: Final = frozenset({301, 302, 303})
_REPEAT: Final = frozenset({307, 308})


class _Request(NamedTuple):
    method: str
    target: Target
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A URL, and how it is asked.

    Raises:
        ValueError: the URL cannot be used (see `parse_target`), or a header is one of ours, or no
            header at all.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent along, to the URL's own scheme, host and port only: any of them may be a secret."""
    timeout_s: float = 60.0
    """For the whole of one attempt, redirects and body included."""
    egress: Egress = field(default_factory=Egress)

    def __post_init__(self) -> None:
        parse_target(self.url)
        for name, value in self.headers.items():
            if name.lower() in _OURS:
                raise ValueError(f"the header {name} is set by the worker")
            if not (name.isascii() and name.replace("-", "").replace("_", "").isalnum()):
                raise ValueError(f"{name!r} is no name of a header")
            if not (value.isascii() and value.isprintable()):
                raise ValueError(f"the value of {name} is not printable ASCII")

    async def ask(self, client: httpx.AsyncClient, task: Task) -> ActionOutput:
        """Send one attempt of a task and read the answer.

        Raises:
            RetryableError: nobody answered in time, or the answer was 408, 425, 429 or 5xx.
            FinalError: the address is not allowed, or the answer was another one than 2xx, or one
                that cannot be read.
        """
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._follow(client, await self._first(task))
        except EgressDeniedError as reason:
            raise FinalError(str(reason), code=EGRESS_DENIED) from reason
        except TimeoutError as reason:
            text = f"{self._shown} did not answer within {self.timeout_s:g} s"
            raise RetryableError(text, code=UNREACHABLE) from reason
        except (OSError, httpx.HTTPError) as reason:
            # The texts of these errors name hosts and numbers, never headers or bodies.
            text = f"{self._shown} cannot be reached: {str(reason) or type(reason).__name__}"
            raise RetryableError(text, code=UNREACHABLE) from reason

    @property
    def _shown(self) -> str:
        """The URL without its query, which may hold a secret."""
        return self.url.partition("?")[0]

    async def _first(self, task: Task) -> _Request:
        headers = {
            **self.headers,
            "Content-Type": "application/json",
            "Idempotency-Key": task.idempotency_key,
            "X-Runkon-Fence": str(task.fence),
        }
        body = json.dumps(await describe(task), ensure_ascii=False).encode("utf-8", "replace")
        return _Request("POST", parse_target(self.url), headers, body)

    async def _follow(self, client: httpx.AsyncClient, request: _Request) -> ActionOutput:
        home = request.target.origin
        for _ in range(_REDIRECTS_MAX + 1):
            if request.target.origin == home:
                status, location, body = await self._send(client, request)
            else:
                # Connections are kept by address, and a certificate was checked for one name.
                async with new_client(self.timeout_s) as other:
                    status, location, body = await self._send(other, request)
            if status not in _SEE_OTHER | _REPEAT:
                return self._judge(status, body)
            request = self._redirected(request, status, location)
        raise FinalError(f"{self._shown} redirects without end", code=BAD_ANSWER)

    async def _send(self, client: httpx.AsyncClient, request: _Request) -> tuple[int, str, bytes]:
        """One hop: the status, where it leads to, and the body."""
        target = request.target
        address = await self.egress.address_of(target)
        # To the address that was looked at, whatever the name leads to by now; the name itself is
        # what the certificate must be for.
        host = f"[{address}]" if ":" in address else address
        sent = client.build_request(
            request.method,
            f"{target.scheme}://{host}:{target.port}{target.path}",
            headers={**request.headers, "Host": target.authority, "Accept-Encoding": "identity"},
            content=request.body,
            extensions={"sni_hostname": target.host},
        )
        answer = await client.send(sent, stream=True)
        try:
            if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise FinalError(f"{self._shown} answered compressed, unasked", code=BAD_ANSWER)
            body = bytearray()
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > _BODY_BYTES_MAX:
                    text = f"{self._shown} answered with more than {_BODY_BYTES_MAX} bytes"
                    raise FinalError(text, code=BAD_ANSWER)
            return answer.status_code, answer.headers.get("Location", ""), bytes(body)
        finally:
            await answer.aclose()

    def _redirected(self, request: _Request, status: int, location: str) -> _Request:
        target = request.target
        base = httpx.URL(f"{target.scheme}://{target.authority}{target.path}")
        try:
            following = parse_target(str(base.join(location)))
        except (ValueError, httpx.InvalidURL) as reason:
            text = f"{self._shown} redirects to what is no URL"
            raise FinalError(text, code=BAD_ANSWER) from reason
        headers = request.headers
        if following.origin != target.origin:
            headers = {name: value for name, value in headers.items() if name.lower() in _OURS}
        if status in _SEE_OTHER:
            return _Request("GET", following, headers, b"")
        return _Request(request.method, following, headers, request.body)

    def _judge(self, status: int, body: bytes) -> ActionOutput:
        text = body.decode("utf-8", "replace").replace("\0", "")
        if 200 <= status < 300:  # noqa: PLR2004 - the class of statuses that mean success
            return read_output(text, {})
        is_temporary = status in _TEMPORARY or status >= 500  # noqa: PLR2004 - likewise, failures
        kind: type[ActionError] = RetryableError if is_temporary else FinalError
        said = f": {text[:_QUOTED_CHARS].strip()}" if text.strip() else ""
        raise kind(f"{self._shown} answered {status}{said}", code=BAD_STATUS)


def new_client(timeout_s: float) -> httpx.AsyncClient:
    """A client that heeds no proxy of the environment and follows nothing by itself."""
    return httpx.AsyncClient(trust_env=False, timeout=timeout_s, follow_redirects=False)


def add_service(actions: Actions, name: str, service: Service) -> None:
    """Execute the calls of this name, or with `*` all that nobody else names, with a service.

    Raises:
        ValueError: the name is empty, too long, or taken.
    """
    clients: list[httpx.AsyncClient] = []

    async def run(task: Task) -> ActionOutput:
        if not clients:  # it belongs to the event loop, so it is made when there is one
            clients.append(new_client(service.timeout_s))
        return await service.ask(clients[0], task)

    async def close() -> None:
        while clients:
            await clients.pop().aclose()

    if name == "*":
        actions.fallback(run)
    else:
        actions.action(name)(run)
    actions.at_end(close)
