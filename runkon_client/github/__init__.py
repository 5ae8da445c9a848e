"""Gates of pull requests on GitHub, looked after by a worker. Needs the extra `github` (httpx)."""

from runkon_client.github.gates import PullRequestGates, add_github_gates
from runkon_client.github.rest import GitHub
from runkon_client.github.tokens import Tokens

__all__ = ["GitHub", "PullRequestGates", "Tokens", "add_github_gates"]
