"""Agents kept as Markdown files, answered by a command such as that of an LLM: see `add_agents`."""

from runkon_client.worker.agents.files import Agent, AgentFileError, read_agent
from runkon_client.worker.agents.prompt import assemble
from runkon_client.worker.agents.serving import add_agents

__all__ = ["Agent", "AgentFileError", "add_agents", "assemble", "read_agent"]
