"""Actions that are requests to services, `--http 'name=URL'`: see `add_service`. Needs httpx."""

from runkon_client.worker.http.egress import Egress, EgressDeniedError, parse_target
from runkon_client.worker.http.service import Service, add_service

__all__ = ["Egress", "EgressDeniedError", "Service", "add_service", "parse_target"]
