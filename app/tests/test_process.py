"""The app under a real server: an absent database, an orderly end, JSON lines."""

import json
import signal
from datetime import datetime
from pathlib import Path

import httpx2 as httpx
import pytest
from cluster import Cluster
from conftest import SECRET_KEY
from serving import GUNICORN, UVICORN, serving

from thecodeforge.log import configure_logging, logger

ORDERLY = (0, -signal.SIGTERM)  # Uvicorn ends by the signal that it was sent, after its shutdown


@pytest.mark.parametrize("command", [UVICORN, GUNICORN], ids=["uvicorn", "gunicorn"])
def test_outlives_its_database(
    cluster: Cluster, database: str, tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_RELEASE", "r7")
    part = {"serial": "s", "name": "n"}
    cluster.stop()
    with serving(command, tmp_path) as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/readyz").status_code == 503
        assert client.post("/parts", json=part).status_code == 503
        assert server.log[0]["message"] == "started"  # at once, although standard output is a file
        cluster.start()
        assert client.post("/parts", json=part).status_code == 201
        assert client.get("/readyz").status_code == 200
        for _ in range(4):
            assert client.get("/parts").status_code == 200
    assert server.process.returncode in ORDERLY
    messages = [line["message"] for line in server.log]
    assert messages.count("started") == messages.count("stopped") == (2 if command is GUNICORN else 1)
    assert {"database away", "database back"} <= set(messages)
    started = server.log[0]
    assert (started["level"], started["logger"]) == ("INFO", "thecodeforge")
    assert (started["release"], started["generation"]) == ("r7", "development")
    assert datetime.fromisoformat(started["time"]).tzinfo
    assert "Traceback" not in server.output
    for secret in (SECRET_KEY, cluster.admin_url.split("@")[0].split(":")[-1]):
        assert secret not in server.output


def test_log_of_an_exception_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("failed %s", "twice\n")
    logger.debug("not at this level")
    [line] = capfd.readouterr().out.splitlines()
    assert json.loads(line)["message"] == "failed twice\n"
    assert "ValueError: two\nlines" in json.loads(line)["exception"]


ORDERLY = (0, -signal.SIGTERM)  # Uvicorn ends by the signal that it was sent, after its shutdown
