import os

from procrastinate import App, PsycopgConnector

jobs = App(connector=PsycopgConnector(conninfo=os.environ["DATABASE_URL"], min_size=1, max_size=3))


@jobs.task(name="send")
async def send(to: str) -> None:
    print("sent to", to, flush=True)
