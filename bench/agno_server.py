"""AgentOS with the agent, the team and the workflow that the bench gives Daybook: the same model, history and instructions.

Settings come from the environment: AGNO_DB (sqlite:///FILE, postgresql+psycopg://... or
postgresql+psycopg_async://...) and MODEL_URL (the mock model, up to /v1). Run it as `uvicorn agno_server:app`.
"""

import os

from agno.agent import Agent
from agno.models.openai import OpenAIChat
from agno.os import AgentOS
from agno.team import Team
from agno.workflow import Step, Workflow
from agno.workflow.types import StepInput, StepOutput


def database():
    url = os.environ["AGNO_DB"]
    if url.startswith("sqlite:"):
        from agno.db.sqlite import SqliteDb

        return SqliteDb(id="main-db", db_file=url.removeprefix("sqlite:///"))
    if url.startswith("postgresql+psycopg_async:"):
        from agno.db.postgres import AsyncPostgresDb

        return AsyncPostgresDb(id="main-db", db_url=url)
    from agno.db.postgres import PostgresDb

    return PostgresDb(id="main-db", db_url=url)


def model():
    return OpenAIChat(id="mock", base_url=os.environ["MODEL_URL"], api_key="none", max_retries=0)


def upper(step_input: StepInput) -> StepOutput:
    return StepOutput(content=str(step_input.input).upper())


db = database()
agent = Agent(
    id="my-agent",
    name="My Agent",
    model=model(),
    db=db,
    instructions="Be brief.",
    add_history_to_context=True,
    num_history_runs=3,
    telemetry=False,
)
researcher = Agent(id="researcher", name="Researcher", role="Finds facts", model=model(), db=db, telemetry=False)
writer = Agent(id="writer", name="Writer", role="Writes text", model=model(), db=db, telemetry=False)
team = Team(id="my-team", name="My Team", members=[researcher, writer], model=model(), db=db, telemetry=False)
workflow = Workflow(
    id="my-workflow",
    name="My Workflow",
    db=db,
    steps=[Step(name="upper", executor=upper), Step(name="agent step", agent=agent)],
    telemetry=False,
)
app = AgentOS(
    id="bench-os", agents=[agent], teams=[team], workflows=[workflow], db=db, telemetry=False
).get_app()
