"""A server on loopback that speaks the shapes of GitHub's REST API, and does as a test tells it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Asked(NamedTuple):
    """One request."""

    path: str
    token: str
    etag: str
    body: bytes


class Reply(NamedTuple):
    """One answer that is no resource."""

    status: int
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b"{}"
    never_ends: bool = False
    """The body is announced longer than it is."""


class Forge:
    """Resources by their paths; lists are given out page by page."""

    def __init__(self) -> None:
        self.url = ""
        self.resources: dict[str, Any] = {}
        self.tokens: set[str] = set()
        """Those that may see something; empty: anyone may."""
        self.next_replies: deque[Reply] = deque()
        self.asked: list[Asked] = []
        self.page_size = 100
        self.is_over = threading.Event()

    def pull(
        self,
        *,
        head: str = "c2",
        author: str = "ada",
        reviews: list[Any] | None = None,
        **more: Any,
    ) -> None:
        """A pull request `o/r#7` with its reviews."""
        self.resources["/repos/o/r/pulls/7"] = {
            "state": "open",
            "merged": False,
            "html_url": "https://github.com/o/r/pull/7",
            "user": {"login": author},
            "head": {"sha": head},
            **more,
        }
        self.resources["/repos/o/r/pulls/7/reviews"] = reviews or []

    def checks(
        self,
        runs: list[tuple[str, str, str | None]],
        statuses: list[tuple[str, str]] = [],  # noqa: B006 - only read
        head: str = "c2",
    ) -> None:
        """Check runs (name, status, conclusion) and statuses (context, state) of a commit."""
        commit = f"/repos/o/r/commits/{head}"
        self.resources[f"{commit}/check-runs"] = {
            "total_count": len(runs),
            "check_runs": [
                {"name": name, "status": status, "conclusion": conclusion}
                for name, status, conclusion in runs
            ],
        }
        self.resources[f"{commit}/status"] = {
            "state": "pending",
            "statuses": [{"context": name, "state": state} for name, state in statuses],
        }

    def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        if self.next_replies:
            return self.next_replies.popleft()
        if self.tokens and asked.token not in self.tokens:
            return Reply(404, body=b'{"message": "Not Found"}')
        parts = urlsplit(asked.path)
        resource = self.resources.get(parts.path)
        if resource is None:
            return Reply(404, body=b'{"message": "Not Found"}')
        page, link = self._page(resource, parts.path, parse_qs(parts.query))
        body = json.dumps(page).encode()
        etag = f'W/"{hash(body)}"'
        headers = {"ETag": etag, **link}
        return Reply(304, headers, b"") if asked.etag == etag else Reply(200, headers, body)

    def _page(
        self, resource: Any, path: str, query: dict[str, list[str]]
    ) -> tuple[Any, dict[str, str]]:
        """One page of a list, wherever it is in the resource, and where the next one is."""
        key = next((k for k in ("check_runs", "statuses") if k in resource), None)
        items = resource[key] if key else resource
        if not isinstance(items, list):
            return resource, {}
        number = int(query.get("page", ["1"])[0])
        size = min(self.page_size, int(query.get("per_page", ["30"])[0]))
        found = items[(number - 1) * size : number * size]
        link = {}
        if number * size < len(items):
            there = f"{self.url}{path}?per_page={size}&page={number + 1}"
            link = {"Link": f'<{there}>; rel="next", <{there}>; rel="last"'}
        return ({**resource, key: found} if key else found), link


def review(login: str | None, state: str, commit: str = "c2") -> dict[str, Any]:
    user = None if login is None else {"login": login}
    return {"user": user, "state": state, "commit_id": commit}


@contextlib.contextmanager
def serve_forge() -> Iterator[Forge]:
    """A forge that answers on loopback until the end."""
    forge = Forge()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            reply = forge.answer(
                Asked(
                    self.path,
                    self.headers.get("Authorization", "").removeprefix("Bearer "),
                    self.headers.get("If-None-Match", ""),
                    self.rfile.read(length),
                )
            )
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body) + reply.never_ends))
            self.end_headers()
            self.wfile.write(reply.body)
            if reply.never_ends:
                forge.is_over.wait()

        do_POST = do_GET  # noqa: N815 - the base class dictates the name

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    forge.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield forge
    finally:
        forge.is_over.set()
        server.shutdown()
        thread.join()
        server.server_close()
