"""AgentOS with the agent that the bench gives Daybook: the same model, history and instructions.

Settings come from the environment: AGNO_DB (sqlite:///FILE, postgresql+psycopg://... or
postgresql+psycopg_async://...) and MODEL_URL (the mock model, up to /v1). Run it as `uvicorn agno_server:app`.
"""

import os

from agno.agent import Agent
from agno.models.openai import OpenAIChat
from agno.os import AgentOS


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


db = database()
agent = Agent(
    id="my-agent",
    name="My Agent",
    model=OpenAIChat(id="mock", base_url=os.environ["MODEL_URL"], api_key="none", max_retries=0),
    db=db,
    instructions="Be brief.",
    add_history_to_context=True,
    num_history_runs=3,
    telemetry=False,
)
app = AgentOS(id="bench-os", agents=[agent], db=db, telemetry=False).get_app()
