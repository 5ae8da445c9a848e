"""Logs of the server: structlog, one record per line, on standard error.

What is bound with `structlog.contextvars` (`request_id`, `method`, `run_id`) is in every record
made below it. Records of libraries that use `logging` leave in the same form. No record shows a
secret: values under telling keys and passwords inside URLs are struck out.
"""

from __future__ import annotations

import logging
import re
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from structlog.typing import Processor

__all__ = ["LogFormat", "configure_logging", "redact"]

STRUCK_OUT: Final = "***"
_SECRET_KEY: Final = re.compile(
    r"(?i)(?:^|[_.\-])(?:token|password|passwd|passphrase|secret|secrets|dsn|authorization|cookie"
    r"|credential|credentials|api_?key|private_?key|database_url)(?:$|[_.\-])"
)
_URL_PASSWORD: Final = re.compile(r"(?<=://)([^\s:/@]*):[^\s/]+@")
_PAIR_PASSWORD: Final = re.compile(r"(?i)\b(password|passfile|sslpassword)\s*=\s*('[^']*'|\S+)")
_DEPTH_MAX: Final = 6


class LogFormat(StrEnum):
    """How records look."""

    JSON = "json"
    """One JSON object per line, for machines."""
    CONSOLE = "console"
    """Coloured on a terminal, for people."""


def configure_logging(log_format: LogFormat, level: str = "info") -> None:
    """Set up the logs of this process; may be called again.

    Args:
        log_format: how records look.
        level: the least that is told: debug, info, warning or error. Libraries tell warnings only.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(log_format),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for ours in ("runkon_server", "runkon_client"):
        logging.getLogger(ours).setLevel(threshold)
    # Says at warning that a connection was closed in the midst of a cancelled query: harmless.
    logging.getLogger("psycopg").setLevel(logging.ERROR)


def redact(
    _logger: object, _method: str, record: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """A processor: strike out secrets anywhere in the record."""
    return {
        key: STRUCK_OUT if _SECRET_KEY.search(key) else _clean(value, _DEPTH_MAX)
        for key, value in record.items()
    }


def _renderers(log_format: LogFormat) -> Sequence[Processor]:
    if log_format is LogFormat.CONSOLE:
        renderer: Processor = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    else:
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False, default=repr)
    # Tracebacks are made text first, so that secrets in them are struck out as well.
    return [structlog.processors.format_exc_info, redact, renderer]


def _clean(value: object, depth: int) -> object:
    if isinstance(value, str):
        text = _URL_PASSWORD.sub(rf"\1:{STRUCK_OUT}@", value) if "://" in value else value
        return _PAIR_PASSWORD.sub(rf"\1={STRUCK_OUT}", text) if "=" in text else text
    if depth == 0:
        return STRUCK_OUT
    if isinstance(value, dict):
        return {
            key: STRUCK_OUT if _SECRET_KEY.search(str(key)) else _clean(item, depth - 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, depth - 1) for item in value]
    if isinstance(value, BaseException):
        return _clean(repr(value), depth)
    return value
