"""GitHub's API over HTTPS: pages, ETags, rate limits. What goes wrong is one of four errors."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import time
from collections import OrderedDict
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from runkon_client.github.tokens import Token

API_URL: Final = "https://api.github.com"
_TIMEOUT_S: Final = 20.0
_ANSWER_S: Final = 60.0
_PAGES_MAX: Final = 20
_PER_PAGE: Final = 100
_BODY_BYTES_MAX: Final = 8 << 20
_CACHED_MAX: Final = 512
_REDIRECTS_MAX: Final = 3
_SECONDARY_LIMIT_S: Final = 60.0  # what GitHub asks for where it names no time
_WAIT_MAX_S: Final = 3600.0
_FORBIDDEN: Final = 403
_NOT_MODIFIED: Final = 304
_TOO_MANY: Final = 429
_SERVER_FAULT: Final = 500


class GitHubError(Exception):
    """No answer that could be used; another look may have more luck."""


class RateLimitedError(GitHubError):
    """GitHub wants to be left alone for so many seconds."""

    def __init__(self, delay_s: float) -> None:
        super().__init__("GitHub asks for a pause")
        self.delay_s = delay_s


class RefusedError(GitHubError):
    """Not found, or not for this token: somebody has to do something about it."""


class _Cached(NamedTuple):
    etag: str
    answer: Any
    next_url: str


class GitHub:
    """Reads one GitHub, with many tokens.

    No token is ever part of an error's text: errors say which status, not which request.
    """

    def __init__(self, api_url: str | None = None) -> None:
        """Connect nothing yet.

        Raises:
            ValueError: tokens would go over the net unencrypted.
        """
        url = httpx.URL((api_url or API_URL).rstrip("/") + "/")
        if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(url.host)):
            raise ValueError("GitHub's API is asked over https only")
        self._url = url
        self._client: httpx.AsyncClient | None = None
        self._cached: OrderedDict[tuple[str, str], _Cached] = OrderedDict()

    @property
    def host(self) -> str:
        """Where people see it: `github.com`, or the host of an enterprise's own."""
        host = self._url.netloc.decode("ascii")
        return host.removeprefix("api.") if host == "api.github.com" else host

    async def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    @property
    def _http(self) -> httpx.AsyncClient:
        """Belongs to one event loop, so it is made when there is one."""
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False)
        return self._client

    async def get(self, path: str, token: Token | None) -> Any:  # noqa: ANN401 - JSON
        """One object.

        Raises:
            GitHubError: there is no answer that could be used.
        """
        return (await self._fetch(str(self._url.join(path)), token)).answer

    async def pages(self, path: str, token: Token | None) -> AsyncIterator[Any]:
        """The pages of a list, at most 20 of them.

        Raises:
            GitHubError: there is no answer that could be used, or there are too many.
        """
        separator = "&" if "?" in path else "?"
        url = str(self._url.join(f"{path}{separator}per_page={_PER_PAGE}"))
        for _ in range(_PAGES_MAX):
            page = await self._fetch(url, token)
            yield page.answer
            if not page.next_url:
                return
            url = self._check_origin(page.next_url)
        raise GitHubError("GitHub's list does not end")

    async def query(self, text: str, variables: Mapping[str, object], token: Token | None) -> Any:  # noqa: ANN401 - JSON
        """The answer to a GraphQL query.

        Raises:
            GitHubError: there is no answer that could be used.
        """
        # An enterprise's API is /api/v3, and its GraphQL is /api/graphql.
        base = str(self._url).removesuffix("v3/")
        request = self._http.build_request(
            "POST",
            f"{base}graphql",
            json={"query": text, "variables": variables},
            headers=_headers(token),
        )
        response = await self._send(request)
        return _parse(response)

    async def _fetch(self, url: str, token: Token | None) -> _Cached:
        key = (url, "" if token is None else token.reveal())
        known = self._cached.get(key)
        headers = _headers(token)
        if known is not None:
            headers["If-None-Match"] = known.etag
        response = await self._send(self._http.build_request("GET", url, headers=headers))
        for _ in range(_REDIRECTS_MAX):
            # A repository that was renamed; its new place is as good for the same token.
            if not response.has_redirect_location:
                break
            there = self._check_origin(str(response.url.join(response.headers["Location"])))
            response = await self._send(self._http.build_request("GET", there, headers=headers))
        if response.status_code == _NOT_MODIFIED and known is not None:
            self._cached.move_to_end(key)
            return known
        if response.has_redirect_location:
            raise GitHubError("GitHub sends from place to place")
        next_url = response.links.get("next", {}).get("url", "")
        found = _Cached(response.headers.get("ETag", ""), _parse(response), next_url)
        if found.etag:
            self._cached[key] = found
            while len(self._cached) > _CACHED_MAX:
                self._cached.popitem(last=False)
        return found

    async def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            # httpx has a limit for each wait, and an answer may come in any number of pieces.
            async with asyncio.timeout(_ANSWER_S):
                response = await self._http.send(request, stream=True)
                try:
                    await _read_body(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise GitHubError("GitHub takes too long to answer") from None
        except httpx.HTTPError as error:
            raise GitHubError(f"GitHub cannot be reached ({type(error).__name__})") from None
        if response.is_success or response.status_code == _NOT_MODIFIED:
            return response
        if response.has_redirect_location and request.method == "GET":
            return response
        raise _refusal(response)

    def _check_origin(self, url: str) -> str:
        """A token goes to nobody but whom it is for."""
        there = httpx.URL(url)
        if (there.scheme, there.netloc) != (self._url.scheme, self._url.netloc):
            raise GitHubError("GitHub's list goes on elsewhere")
        return url


async def _read_body(response: httpx.Response) -> None:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _BODY_BYTES_MAX:
            raise GitHubError("GitHub's answer is too large")
    response.extensions["body"] = bytes(body)


def _parse(response: httpx.Response) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(response.extensions["body"])
    except (ValueError, RecursionError):
        raise GitHubError("GitHub's answer is no JSON") from None


def _refusal(response: httpx.Response) -> GitHubError:
    status = response.status_code
    if status == _TOO_MANY or (status == _FORBIDDEN and _is_rate_limit(response)):
        return RateLimitedError(_wait_s(response.headers))
    if status >= _SERVER_FAULT:
        return GitHubError(f"GitHub answers {status}")
    return RefusedError(f"GitHub answers {status}: is it there, and may this identity see it?")


def _is_rate_limit(response: httpx.Response) -> bool:
    headers = response.headers
    return (
        "Retry-After" in headers
        or headers.get("X-RateLimit-Remaining") == "0"
        or b"rate limit" in response.extensions["body"]
    )


def _wait_s(headers: httpx.Headers) -> float:
    """What the answer asks for, in one of three ways."""
    wait_s = _SECONDARY_LIMIT_S
    try:
        after = headers.get("Retry-After", "")
        if after.isdecimal():
            wait_s = float(after)
        elif after:
            wait_s = parsedate_to_datetime(after).timestamp() - time.time()
        elif headers.get("X-RateLimit-Remaining") == "0":
            wait_s = float(headers.get("X-RateLimit-Reset", "")) - time.time()
    except (ValueError, OverflowError):
        pass
    return min(max(1.0, wait_s), _WAIT_MAX_S)


def _headers(token: Token | None) -> dict[str, str]:
    headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token.reveal()}"
    return headers


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
