"""`runkon worker` with programs, agents and services: real directories, real processes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from runkon_client.values import RunStatus, StepStatus
from support.worker_command import worker_command

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from e2e.conftest import Place

    from runkon_client import Client

NODE = """
const chunks = [];
process.stdin.on("data", (chunk) => chunks.push(chunk));
process.stdin.on("end", () => {
  const task = JSON.parse(Buffer.concat(chunks).toString());
  const words = task.inputs.text.split(" ");
  console.log(JSON.stringify({ markers: ["counted"], context: `${words.length} words`, words }));
});
"""
GO = """
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	var task struct {
		Inputs         map[string]string
		IdempotencyKey string `json:"idempotency_key"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&task); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(65)
	}
    block := "<<<FLOW_OUTPUT>>>\\n{\\"context\\": \\"go saw %s\\"}\\n<<<END_FLOW_OUTPUT>>>\\n"
    fmt.Printf(block, task.Inputs["text"])
}
"""


def written(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if name.endswith(".sh"):
            path.chmod(0o755)
    return folder


def build(folder: Path) -> None:
    """The Go program, from the standard library alone."""
    subprocess.run(
        ["go", "build", "-o", "seen", "main.go"],
        cwd=folder,
        env={**os.environ, "GO111MODULE": "off", "CGO_ENABLED": "0"},
        check=True,
    )


async def test_exec_serves_a_shell_line_a_node_script_and_a_go_binary(
    client: Client, place: Place, tmp_path: Path
) -> None:
    """Each gets the task as JSON and answers in a form of its own."""
    missing = [tool for tool in ("node", "go") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    written(tmp_path, {"count.js": NODE, "main.go": GO})
    await asyncio.to_thread(build, tmp_path)
    source = """workflow w {
      inputs { text required }
      call shout
      call count { retries = 1 }
      if count.counted { call seen }
      call broken { on_fail = continue }
    }"""
    words = (
        """--exec=shout=printf %s "$RUNKON_INPUT_TEXT" | tr a-z A-Z""",
        "--exec=count=node count.js",
        "--exec=seen=./seen",
        "--exec=broken=echo 'no such thing' >&2; exit 65",
    )
    with worker_command(place.address, place.namespace, *words, folder=tmp_path):
        run = await client.start_run(source=source, inputs={"text": "it's $(a) `test`"})
        ended = await run.wait()
    steps = {step.step_name: step async for step in run.steps()}

    assert ended.status is RunStatus.COMPLETED, ended.error
    assert steps["shout"].context == "IT'S $(A) `TEST`"
    assert steps["count"].context == "3 words"
    assert json.loads(steps["count"].structured_output)["words"] == ["it's", "$(a)", "`test`"]
    assert steps["seen"].context == "go saw it's $(a) `test`"
    assert steps["broken"].status is StepStatus.FAILED
    assert steps["broken"].step_error == "program broken ended with exit code 65: no such thing"


LAYOUT = {
    "workflows/ticket.wf": """workflow ticket {
  inputs { ticket_id required }
  call plan { output = plan with = [house-style] }
  call implement { retries = 2 as = "builder" }
  script lint { run = "lint.sh {{ticket_id}}" }
  do {
    max_iterations = 3
    call "agents/review.md"
  } while review.needs_work
  if lint.clean { call workflow publish { inputs { ticket_id = "{{ticket_id}}" } } }
  always { call report }
}
""",
    "workflows/publish.wf": "workflow publish { inputs { ticket_id required } call publish }\n",
    "agents/plan.md": "---\nmodel: opus\nrole: actor\n---\nPlan the work on {{ticket_id}}.\n",
    "agents/implement.md": "---\nmodel: sonnet\ncan_commit: true\n---\n"
    "Implement {{prior_context}}.\n",
    "agents/review.md": "Review what was done.\n",
    "agents/publish.md": "Publish {{ticket_id}}.\n",
    "agents/report.md": "Report: the workflow is {{workflow_status}}.\n",
    "schemas/plan.yaml": "fields:\n  steps:\n    type: array\n    items: string\n"
    "markers:\n  has_steps: steps.length > 0\n",
    "snippets/house-style.md": "Write plainly, {{ticket_id}}.\n",
    "scripts/lint.sh": "#!/bin/sh\n"
    "echo '<<<FLOW_OUTPUT>>>'\n"
    """printf '{"markers": ["clean"], "context": "linted %s"}\\n' "$1"\n"""
    "echo '<<<END_FLOW_OUTPUT>>>'\n",
    # The stand-in for an LLM's command: keeps each prompt, and answers by the agent's name.
    "llm.sh": r"""#!/bin/sh
count=$(ls prompts | grep -c "^$RUNKON_AGENT-")
cat > "prompts/$RUNKON_AGENT-$count"
echo "$RUNKON_AGENT:$RUNKON_MODEL:$RUNKON_IDENTITY" >> calls
answer() {
  printf 'Here you are.\n<<<FLOW_OUTPUT>>>\n```json\n%s\n```\n<<<END_FLOW_OUTPUT>>>\n' "$1"
}
case "$RUNKON_AGENT-$count" in
  plan-0) answer '{"steps": ["one", "two"],}' ;;
  implement-0) echo "the model is overloaded" >&2; exit 1 ;;
  review-0) answer '{"markers": ["needs_work"], "context": "rename it"}' ;;
  review-1) answer '{"markers": [], "context": "fine"}' ;;
  *) answer '{"context": "done"}' ;;
esac
""",
}


async def test_a_directory_in_the_layout_of_the_original_runs(
    client: Client, place: Place, tmp_path: Path
) -> None:
    """Agents with models, identities, retries, snippets and schemas; scripts; a child workflow."""
    written(tmp_path, LAYOUT)
    (tmp_path / "prompts").mkdir()
    for name in ("publish", "ticket"):
        await client.put_workflow(
            LAYOUT[f"workflows/{name}.wf"],
            output_schemas={"plan": LAYOUT["schemas/plan.yaml"]} if name == "ticket" else {},
            snippets={"house-style": LAYOUT["snippets/house-style.md"]} if name == "ticket" else {},
        )
    words = (
        "--agents", "agents", "--agent-command", "./llm.sh",
        "--allow-scripts", "scripts", "--sandbox", "none",
    )  # fmt: skip
    with worker_command(place.address, place.namespace, *words, folder=tmp_path):
        run = await client.start_run("ticket", inputs={"ticket_id": "T-7"})
        ended = await run.wait()
    steps = [step async for step in run.steps()]
    (plan,) = (step for step in steps if step.step_name == "plan")

    assert ended.status is RunStatus.COMPLETED, ended.error
    assert (tmp_path / "calls").read_text().splitlines() == [
        "plan:opus:", "implement:sonnet:builder", "implement:sonnet:builder", "review::",
        "review::", "publish::", "report::",
    ]  # fmt: skip
    assert json.loads(plan.structured_output) == {"steps": ["one", "two"]}
    assert plan.markers == ("has_steps",)

    def prompt(name: str) -> str:
        return (tmp_path / "prompts" / name).read_text(encoding="utf-8")

    assert "Plan the work on T-7." in prompt("plan-0")
    assert "Write plainly, T-7." in prompt("plan-0")
    assert "steps:" in prompt("plan-0").partition("<<<FLOW_OUTPUT>>>")[2]
    assert "the model is overloaded" in prompt("implement-1")
    assert "Report: the workflow is completed." in prompt("report-0")
