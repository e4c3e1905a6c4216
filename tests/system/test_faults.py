# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults, each under light load: what serves goes on, and the state is whole afterwards.

Most are tried at one step of one module, which runs on the node as Ansible runs it (driver.py), because a playbook for
each would take an hour; misbehaving candidates are copies of a staged generation. Writes a table of what happened to
build/bench/faults.txt and faults.json.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest
from conftest import LAB, REPOSITORY, SET, Fleet, some_of
from counted import check_lost, counted

NODE = "app12"
DRIVER = "/opt/forge-driver"
STEP = {"app": "forge", "root": "/srv", "by": "test", "watch_seconds": 2, "drain_seconds": 5, "health_deadline": 40}
CLIENTS = "keepalive=2,closing=2,post=2,pausing=2"
WITHOUT_DATABASE = "keepalive=2,closing=2,pausing=2"
MIGRATIONS = 171229081  # KEY of database_session.py
ROWS: list[dict[str, Any]] = []


# -- load, state, and the table --------------------------------------------------------------------


@contextlib.contextmanager
def serving(fleet: Fleet, fault: str, clients: str = CLIENTS, may_lose: str = "") -> Iterator[dict[str, Any]]:
    """Light load while the block runs; no request may be lost, and one generation must serve afterwards.

    :param may_lose: why this fault loses requests whatever one does; the loss is in the table.
    """
    row: dict[str, Any] = {"fault": fault, "happened": ""}
    with counted(row, fleet.url(NODE, ""), clients, 0.05, may_lose):
        yield row
    # A generation that the host went back from drains, and is not waited for.
    ends = time.monotonic() + 30
    while not (now := state(fleet)).startswith("one generation serves") and time.monotonic() < ends:
        time.sleep(0.5)
    row["state"] = now
    ROWS.append(row)
    check_lost(row)
    assert row["state"].startswith("one generation serves"), row


def state(fleet: Fleet) -> str:
    """One sentence on what the node serves."""
    running = fleet.on(NODE, "systemctl list-units --plain --no-legend --all --state=active,activating,deactivating "
                             "'forge@*.service' | awk '{print $1}'").split()  # fmt: skip
    live = fleet.live(NODE)
    if running != [f"forge@{live}.service"]:
        return f"current is {live}, running are {running}"
    answered = fleet.until(lambda: fleet.get(NODE, "/version").json(), what="an answer")["generation"]
    return f"one generation serves: {live}" if answered == live else f"{answered} answers, current is {live}"


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    head = {"fault": "fault", "happened": "what happened", "lost": "lost", "state": "state afterwards"}
    lines = []
    for row in [head, *ROWS]:
        lost = f"{row['lost']} of {row['requests']}" if "requests" in row else row["lost"]
        lost += f" ({row['why']})" if row.get("why") else ""
        lines.append(f"| {row['fault']} | {row['happened']} | {lost} | {re.sub(': .*', '', row['state'])} |")
        if row is head:
            lines.append("| --- | --- | --- | --- |")
    bench = REPOSITORY / "build" / "bench"
    bench.mkdir(parents=True, exist_ok=True)
    (bench / "faults.json").write_text(json.dumps(ROWS, indent=2) + "\n")
    (bench / "faults.txt").write_text("\n".join(lines) + "\n")
    print("\n" + "\n".join(lines))


# -- one module, one step --------------------------------------------------------------------------


def run_module(fleet: Fleet, module: str, die: str = "", **arguments: Any) -> dict[str, Any]:
    """Run a module on the node; what it answered, or {"killed": True}."""
    asked = {"module": module, "die": die, "arguments": arguments}
    done = subprocess.run(
        [str(LAB), "exec", "--set", SET, NODE, "--", "python3", f"{DRIVER}/driver.py"],
        input=json.dumps(asked), capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    if die and done.returncode == 137:
        return {"killed": True}
    assert done.stdout.strip().startswith("{"), done.stdout + done.stderr
    return json.loads(done.stdout)


def step(fleet: Fleet, generation: str, name: str, die: str = "", **more: Any) -> dict[str, Any]:
    return run_module(fleet, "rollout", die, **{**STEP, "generation": generation, "step": name, **more})


def roll_out(fleet: Fleet, generation: str, die: str = "", **more: Any) -> dict[str, Any]:
    """Candidate and switch, as the playbook has them."""
    candidate = step(fleet, generation, "candidate", die, **more)
    if not candidate.get("healthy"):
        return candidate
    return step(fleet, generation, "switch", die, through="finish", **more)


@pytest.fixture(scope="module")
def pair(fleet: Fleet, source: Path) -> tuple[str, str]:
    """Two good generations on the node, which has the driver; the second one serves."""
    changed = source / "src" / "thecodeforge" / "faults.py"
    found = []
    for version in ("one", "two"):
        changed.write_text(f"FAULTS = {version!r}\n")
        fleet.play("deploy", limit=NODE)
        found.append(fleet.live(NODE))
    put_driver()
    return found[0], found[1]


def put_driver() -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("ansible/__init__.py"))
        tar.add(Path(ansible.module_utils.__file__).parent, "ansible/module_utils", filter=no_byte_code)
        tar.add(REPOSITORY / "plugins", "ansible_collections/thecodeforge/fastapi/plugins", filter=no_byte_code)
        tar.add(REPOSITORY / "tests/system/driver.py", "driver.py")
    subprocess.run(
        [str(LAB), "exec", "--set", SET, NODE, "--", "sh", "-c",
         f"rm -rf {DRIVER} && mkdir {DRIVER} && base64 -d | tar xz -C {DRIVER}"],
        input=base64.b64encode(archive.getvalue()), check=True,
    )  # fmt: skip


def no_byte_code(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in member.name else member


def other(fleet: Fleet, pair: tuple[str, str]) -> str:
    """That of the pair which does not serve."""
    return pair[0] if fleet.live(NODE) == pair[1] else pair[1]


def copy_of(fleet: Fleet, generation: str, number: int, misbehave: str = "", sed: str = "", release: str = "") -> str:
    """A staged generation like another, which misbehaves; or with another release."""
    new = f"{release or generation[:12]}-{number:08x}"
    home = f"/srv/forge/generations/{new}"
    script = f"""
    set -e
    rm -rf {home} && cp -a /srv/forge/generations/{generation} {home}
    for unit in {home}/units/*@{generation}.*; do mv "$unit" "${{unit%@*}}@{new}.${{unit##*.}}"; done
    sed -i 's/{generation}/{new}/g' {home}/release.json {home}/units/*@{new}.*
    sed -i 's/"state": "[a-z]*"/"state": "validated"/' {home}/release.json
    """
    if release:
        script += f"sed -i 's/{generation[:12]}/{release}/g' {home}/release.json {home}/units/*@{new}.*\n"
    if misbehave:
        script += f"echo 'FORGE_MISBEHAVE=\"{misbehave}\"' >> {home}/environment\n"
    if sed:
        script += f"sed -i {shlex.quote(sed)} {home}/units/forge@{new}.service\n"
    fleet.on(NODE, script)
    return new


def record(fleet: Fleet, generation: str) -> dict[str, Any]:
    return json.loads(fleet.on(NODE, f"cat /srv/forge/generations/{generation}/release.json"))


def last_entry(fleet: Fleet) -> dict[str, Any]:
    return json.loads(fleet.on(NODE, "tail -1 /srv/forge/ledger.jsonl"))


# -- candidate -------------------------------------------------------------------------------------

SOON = {"health_deadline": 8}
CANDIDATES = {
    "exits at once": ("exits", "", {}, "exited"),
    "raises when imported": ("raises", "", {}, "exited"),
    "crash-loops": ("segfault", "", SOON, "Fatal Python error: Segmentation fault"),
    "hangs in its lifespan": ("hangs", "", SOON, "was not healthy within 8 s: it did not answer"),
    "answers 500": ("500", "", {"health_deadline": 15}, "GET /healthz answered 500, not 200"),
    "too slow": ("slow", "", SOON, "was not healthy within 8 s: it did not answer"),
    "binds nothing": (
        "", "s|^ExecStart=.*|ExecStart=/bin/sleep infinity|; s|^Type=notify|Type=exec|", SOON, "it did not answer",
    ),
    "fails a smoke test": ("", "", {"smoke": [{"path": "/not-there"}]}, "GET /not-there answered 404, not 200"),
    "fails the smoke command": ("", "", {"smoke_command": "sh -c 'echo no; exit 3'"}, "with exit code 3: no"),
}  # fmt: skip


@pytest.mark.parametrize(
    "fault", some_of(CANDIDATES, "raises when imported", "hangs in its lifespan", "fails the smoke command")
)
def test_bad_candidate_is_stopped_and_marked(fleet: Fleet, pair: tuple[str, str], fault: str) -> None:
    misbehave, sed, more, sentence = CANDIDATES[fault]
    bad = copy_of(fleet, pair[1], 0xBAD0 + list(CANDIDATES).index(fault), misbehave, sed)
    before = fleet.live(NODE)
    with serving(fleet, f"candidate {fault}") as row:
        answer = step(fleet, bad, "candidate", **more)
        row["happened"] = "refused, stopped, marked bad; " + re.sub(re.escape(bad), "it", answer["reason"])
    assert answer["healthy"] is False
    assert re.search(sentence, answer["reason"])
    assert "What served before still serves." in answer["reason"]
    assert len(answer["journal"]) <= 80
    assert answer["journal"], "its journal is shown"
    assert fleet.live(NODE) == before
    assert record(fleet, bad)["state"] == "bad"
    assert re.search(sentence, record(fleet, bad)["reason"])
    assert last_entry(fleet)["result"] == "failed"
    assert fleet.on(NODE, "systemctl is-active forge.socket") == "active"
    fleet.on(NODE, f"rm -rf /srv/forge/generations/{bad} /etc/systemd/system/forge@{bad}.service")


@pytest.mark.parametrize("fault", ["sick when live", "dies when live"])
def test_host_goes_back_when_the_new_generation_fails_in_its_watch(
    fleet: Fleet, pair: tuple[str, str], fault: str
) -> None:
    bad = copy_of(fleet, pair[1], 0xDEAD + len(fault) % 3, fault)
    before = fleet.live(NODE)
    master = f"systemctl show forge@{before} --property MainPID --property ActiveEnterTimestampMonotonic"
    served = fleet.on(NODE, master)
    lose = "those that the dead processes had accepted" if fault.startswith("dies") else ""
    with serving(fleet, f"healthy, then {fault}", may_lose=lose) as row:
        answer = roll_out(fleet, bad, watch_seconds=6)
        row["happened"] = "the host went back by itself; " + answer.get("msg", "?").replace(bad, "it")
    assert answer["failed"]
    assert f"The host went back to {before}." in answer["msg"]
    assert fleet.live(NODE) == before
    assert fleet.on(NODE, master) == served, "it stood by, and was not started again"
    assert record(fleet, bad)["state"] == "bad"
    fleet.on(NODE, f"rm -rf /srv/forge/generations/{bad} /etc/systemd/system/forge@{bad}.service")


def test_rollback_does_not_go_to_a_bad_or_half_made_one(fleet: Fleet, pair: tuple[str, str]) -> None:
    fleet.on(NODE, "mkdir -p /srv/forge/generations/0123456789ab-00000000")
    status = run_module(fleet, "status", app="forge", root="/srv")
    assert status["previous"] == other(fleet, pair)
    assert "0123456789ab-00000000" not in status["generations"]
    fleet.on(NODE, "rmdir /srv/forge/generations/0123456789ab-00000000")


# -- switch: killed at every step, and without power at every step ---------------------------------

POINTS = {
    "before the candidate starts": "processes.Processes.install_units:before",
    "while the candidate starts": "processes.Processes.wait_until_healthy:0.3",
    "when the candidate is healthy": "candidate.Candidate.run_smoke_tests:after",
    "before the switch": "switch.Switch.point_current:before",
    "right after the switch": "switch.Switch.point_current:after",
    "when the new one is public": "switch.Switch.wait_until_public:after",
    "while the old one stands by": "switch.Switch.others_stand_by:after",
    "while the old one drains": "switch.Switch.finish:0.3",
    "in the watch": "switch.Switch.watch:before",
    "before the prune": "generations.Generations.prune:before",
}


@pytest.mark.parametrize("point", some_of(POINTS, "before the switch", "when the new one is public"))
def test_rollout_killed_at_a_step_is_ended_by_the_next_run(fleet: Fleet, pair: tuple[str, str], point: str) -> None:
    before, new = fleet.live(NODE), other(fleet, pair)
    with serving(fleet, f"rollout killed {point}") as row:
        assert roll_out(fleet, new, POINTS[point]) == {"killed": True}
        left = fleet.live(NODE)
        again = roll_out(fleet, new)
        row["happened"] = f"{'the old' if left == before else 'the new'} one was live; the next run ended it"
    assert not again.get("failed"), again
    whole_and_recorded(fleet, before, new)


# One for each state of the disk: what lies below /run, and what runs, is gone after a power cut.
CUTS = (
    "before the candidate starts",
    "before the switch",
    "right after the switch",
    "while the old one drains",
    "before the prune",
)


@pytest.mark.parametrize("point", some_of(CUTS, "right after the switch"))
def test_power_cut_at_a_step_leaves_one_generation_at_boot(fleet: Fleet, pair: tuple[str, str], point: str) -> None:
    before, new = fleet.live(NODE), other(fleet, pair)
    assert roll_out(fleet, new, POINTS[point]) == {"killed": True}
    left = fleet.live(NODE)
    fleet.lab("kill", NODE)
    fleet.lab("start", NODE)
    fleet.until(lambda: fleet.get(NODE, "/healthz").status_code == 200, what="serving after the boot")
    assert fleet.live(NODE) == left
    assert state(fleet) == f"one generation serves: {left}"
    with serving(fleet, f"power cut {point}", WITHOUT_DATABASE) as row:  # the lab gave it another address
        again = roll_out(fleet, new)
        row["happened"] = f"{'the old' if left == before else 'the new'} one served at boot; the next run ended it"
    assert not again.get("failed"), again
    whole_and_recorded(fleet, before, new)


def whole_and_recorded(fleet: Fleet, before: str, new: str) -> None:
    """Live, converged, and known as what serves now, with the one before as what a rollback goes to."""
    status = run_module(fleet, "status", app="forge", root="/srv")
    assert (status["live"], status["problem"]) == (new, "")
    assert status["since"], "the ledger knows the switch"
    assert status["previous"] == before
    assert record(fleet, new)["state"] == "good"
    assert step(fleet, new, "switch")["changed"] is False, "nothing is left to do"
    assert fleet.on(NODE, "ls -A /srv/forge | grep -c 'current.*tmp'", check=False) == "0"


def test_second_rollout_waits_for_one_whose_controller_died(
    fleet: Fleet, pair: tuple[str, str], database: None
) -> None:
    """SIGKILL to Ansible leaves the module at work on the host: the next run must not cut in."""
    before, new = fleet.live(NODE), other(fleet, pair)
    assert step(fleet, new, "candidate")["healthy"]
    with serving(fleet, "controller killed, its module still at work on the host") as row:
        orphan = subprocess.Popen(
            [str(LAB), "exec", "--set", SET, NODE, "--", "python3", f"{DRIVER}/driver.py"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        arguments = {**STEP, "generation": new, "step": "switch", "through": "finish", "watch_seconds": 4}
        orphan.stdin.write(json.dumps({"module": "rollout", "arguments": arguments}))
        orphan.stdin.close()
        fleet.until(lambda: fleet.live(NODE) == new, what="the switch")
        began = time.monotonic()
        back = roll_out(fleet, before)
        row["happened"] = "the next run waited for it, then did its own"
    assert time.monotonic() - began > 2
    assert orphan.wait(30) == 0
    assert not back.get("failed"), back
    whole_and_recorded(fleet, new, before)


# -- disks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", some_of(["/run", "/srv"], "/srv"))
def test_full_disk_stops_the_candidate_before_it_starts(fleet: Fleet, pair: tuple[str, str], place: str) -> None:
    before, new = fleet.live(NODE), other(fleet, pair)
    if place == "/srv":  # a small one, of its own
        fleet.on(NODE, """
            set -e; systemctl stop forge 'forge@*.service'
            size=$(du -sk /srv | cut -f1); mkdir -p /mnt/small
            mount -t tmpfs -o size=$((size + 8192))k tmpfs /mnt/small
            cp -a /srv/. /mnt/small; mount --move /mnt/small /srv || { mount --bind /mnt/small /srv; }
            systemctl start forge""")  # fmt: skip
        fleet.until(lambda: fleet.get(NODE, "/healthz").status_code == 200)
    else:
        fleet.on(NODE, "mount -o remount,size=4m /run")
    try:
        with serving(fleet, f"{place} is full", WITHOUT_DATABASE) as row:
            fleet.on(NODE, f"dd if=/dev/zero of={place}/filling bs=64k 2>/dev/null || true")
            answer = step(fleet, new, "candidate")
            fleet.on(NODE, f"rm {place}/filling")
            row["happened"] = answer["reason"].replace(new, "it")
        assert answer["healthy"] is False
        assert "MB free" in answer["reason"]
        assert fleet.live(NODE) == before
        assert not roll_out(fleet, new).get("failed"), "there is room again"
    finally:
        fleet.on(NODE, f"rm -f {place}/filling; mount -o remount,size=1g /run")
        if place == "/srv":
            fleet.on(NODE, """
                systemctl stop forge 'forge@*.service'
                rm -rf /srv.kept && cp -a /srv /srv.kept; umount -l /srv; umount -l /mnt/small 2>/dev/null
                rm -rf /srv/forge && cp -a /srv.kept/forge /srv/ && rm -rf /srv.kept
                systemctl start forge""")  # fmt: skip
            fleet.until(lambda: fleet.get(NODE, "/healthz").status_code == 200)


# -- migrations ------------------------------------------------------------------------------------


def migrate(fleet: Fleet, generation: str, *commands: str, timeout: int = 60) -> dict[str, Any]:
    return run_module(fleet, "migrate", app="forge", root="/srv", generation=generation, commands=list(commands),
                      timeout=timeout)  # fmt: skip


def sql(fleet: Fleet, statement: str) -> str:
    return fleet.on("db", f'runuser -u postgres -- psql -At forge -c "{statement}"')


@pytest.fixture(scope="module")
def database(fleet: Fleet, pair: tuple[str, str]) -> None:
    """Power cuts gave the node another address: site.yml tells the database."""
    fleet.play("site")
    fleet.until(lambda: fleet.get(NODE, "/readyz").status_code == 200, what="the database's consent")


def refused(fleet: Fleet, row: dict[str, Any], answer: dict[str, Any], sentence: str) -> None:
    said = answer["msg"] + " ".join(answer.get("lines", []))
    row["happened"] = answer["msg"]
    assert answer["failed"]
    assert "What served before still serves." in answer["msg"]
    assert re.search(sentence, said), said


def test_migration_that_fails_half_way(fleet: Fleet, pair: tuple[str, str], database: None) -> None:
    half = "python -c \"print('half of it'); raise SystemExit(4)\""
    with serving(fleet, "migration fails half-way") as row:
        answer = migrate(fleet, other(fleet, pair), "alembic upgrade head", half, "python -c 'print(\"not reached\")'")
        refused(fleet, row, answer, "failed with exit code 4")
    assert "half of it" in answer["lines"]
    assert "not reached" not in answer["lines"]


def test_migration_that_never_ends(fleet: Fleet, pair: tuple[str, str], database: None) -> None:
    with serving(fleet, "migration hangs") as row:
        refused(fleet, row, migrate(fleet, other(fleet, pair), "sleep 100", timeout=3), "did not end within 3 s")


def test_migration_of_several_heads(fleet: Fleet, pair: tuple[str, str], database: None) -> None:
    release = "feedfacefeed"
    versions = f"/srv/forge/releases/{release}/migrations/versions"
    twin = "revision = {0!r}\ndown_revision = '0001'\nbranch_labels = None\ndepends_on = None\ndef upgrade(): pass\n"
    fleet.on(NODE, f"cp -a /srv/forge/releases/{pair[1][:12]} /srv/forge/releases/{release}")
    for name in ("0002a", "0002b"):
        fleet.on(NODE, f"cat > {versions}/{name}.py <<'E'\n{twin.format(name)}E")
    new = copy_of(fleet, pair[1], 0x4EAD, release=release)
    with serving(fleet, "several alembic heads") as row:
        refused(fleet, row, migrate(fleet, new, "alembic upgrade head"), "[Mm]ultiple head")
    assert sql(fleet, "select version_num from alembic_version") == "0001"
    fleet.on(NODE, f"rm -rf /srv/forge/releases/{release} /srv/forge/generations/{new}")


def test_migration_while_another_controller_migrates(fleet: Fleet, pair: tuple[str, str], database: None) -> None:
    holder = subprocess.Popen(
        [str(LAB), "exec", "--set", SET, "db", "--", "runuser", "-u", "postgres", "--", "psql", "forge", "-c",
         f"select pg_advisory_lock({0x666F726765}), pg_sleep(60)"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    fleet.until(lambda: sql(fleet, "select count(*) from pg_locks where locktype = 'advisory'") != "0", what="the lock")
    with serving(fleet, "migration locked by another controller") as row:
        answer = migrate(fleet, other(fleet, pair), "alembic -x lock_timeout=1s upgrade head")
        refused(fleet, row, answer, "Another process is migrating this database; waited 1s for it")
        row["happened"] = "the second one waited its time, said so and failed"
    sql(fleet, "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'")
    holder.wait(30)
    assert not migrate(fleet, other(fleet, pair), "alembic upgrade head").get("failed"), "the lock is free again"


def test_migration_gives_up_waiting_for_a_table_that_is_in_use(
    fleet: Fleet, pair: tuple[str, str], database: None
) -> None:
    """Else all that the app asks of the table would wait behind it."""
    change = "alter table parts add column never integer"
    code = f"import os, psycopg; psycopg.connect(os.environ['FORGE_DATABASE_URL'].replace('+psycopg', '')).execute('{change}')"
    holder = subprocess.Popen(
        [str(LAB), "exec", "--set", SET, "db", "--", "runuser", "-u", "postgres", "--", "psql", "forge", "-c",
         "begin; select count(*) from parts; select pg_sleep(61)"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    fleet.until(
        lambda: sql(fleet, "select count(*) from pg_stat_activity where query like '%pg_sleep(61)'") != "0",
        what="the lock",
    )
    with serving(fleet, "a migration waits for a table that a report reads") as row:
        answer = run_module(fleet, "migrate", app="forge", root="/srv", generation=other(fleet, pair),
                            commands=[f"python -c {shlex.quote(code)}"], lock_timeout=2)  # fmt: skip
        refused(fleet, row, answer, "canceling statement due to lock timeout")
        row["happened"] = "it gave up after its time; what the app asked meanwhile waited as long"
    sql(fleet, "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(61)'")
    holder.wait(30)


def test_migration_while_the_database_is_down(fleet: Fleet, pair: tuple[str, str], database: None) -> None:
    fleet.on("db", "systemctl stop postgresql")
    try:
        with serving(fleet, "database down", WITHOUT_DATABASE) as row:
            answer = migrate(fleet, other(fleet, pair), "alembic upgrade head")
            refused(fleet, row, answer, "The database does not answer")
    finally:
        fleet.on("db", "systemctl start postgresql")
    fleet.until(lambda: fleet.get(NODE, "/readyz").status_code == 200)


def test_database_is_restarted_while_it_is_asked(fleet: Fleet, pair: tuple[str, str], database: None) -> None:
    """What asks it in that moment fails, which is the app's to say; nothing else does, and no worker has to be restarted."""
    workers = fleet.workers(NODE)
    with serving(fleet, "database restarted", WITHOUT_DATABASE) as row:
        fleet.on("db", "systemctl restart postgresql@15-main")
        fleet.until(lambda: fleet.get(NODE, "/readyz").status_code == 200, 10)
        row["happened"] = "the app's pool connected anew"
    with serving(fleet, "after that") as row:
        time.sleep(2)
        row["happened"] = "nothing"
    assert fleet.workers(NODE) == workers


def test_database_ahead_of_the_code(fleet: Fleet, pair: tuple[str, str], database: None) -> None:
    """After a rollback: the code does not know the schema. A migration says so; a rollback refuses until it is told."""
    sql(fleet, "update alembic_version set version_num = '0002'")
    try:
        with serving(fleet, "database ahead of the code") as row:
            refused(fleet, row, migrate(fleet, other(fleet, pair), "alembic upgrade head"), "0002")
            row["happened"] += " A rollback refuses until it is told that the code works with it."
            before, run = fleet.live(NODE), fleet.play("rollback", check=False, limit=NODE)
            assert run.rc != 0
            assert "0002" in run.said()
            assert fleet.live(NODE) == before
            fleet.play("rollback", limit=NODE, forge_schema_compatible=True)
            assert fleet.live(NODE) != before
    finally:
        sql(fleet, "update alembic_version set version_num = '0001'")


# -- whole playbooks: the controller is killed, the host goes away, two at once --------------------


def deploy_in_background(fleet: Fleet, limit: str = NODE, **extra: Any) -> subprocess.Popen[str]:
    command = ["ansible-playbook", "-i", str(REPOSITORY / "inventories" / "lab"), "playbooks/deploy.yml",
               "--limit", limit, "--extra-vars", json.dumps({**fleet.variables, **extra})]  # fmt: skip
    return subprocess.Popen(
        command, cwd=REPOSITORY, env={**os.environ, "FORGE_LAB_SET": SET, "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def wait_for_task(process: subprocess.Popen[str], name: str) -> None:
    for line in process.stdout:
        if line.startswith("TASK") and name in line:
            return
    raise AssertionError(f"there was no task {name}")


def change(source: Path, text: str) -> None:
    (source / "src" / "thecodeforge" / "faults.py").write_text(f"FAULTS = {text!r}\n")


KILLS = {
    "while it stages and validates": ("Stage the generation", 0.7),
    "in the migration": ("Migrate the database", 0.7),
    "while the old one drains": ("Switch, and watch", 1.0),
}


@pytest.mark.thorough
@pytest.mark.parametrize("point", KILLS)
def test_controller_killed(fleet: Fleet, pair: tuple[str, str], database: None, source: Path, point: str) -> None:
    task, seconds = KILLS[point]
    change(source, f"killed {point}")
    with serving(fleet, f"controller killed {point}") as row:
        process = deploy_in_background(fleet)
        wait_for_task(process, task)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        fleet.play("deploy", limit=NODE)
        row["happened"] = "the lock of the dead controller was taken over; the next run ended it"
    whole_and_recorded(fleet, run_module(fleet, "status", app="forge", root="/srv")["previous"], fleet.live(NODE))
    change(source, f"after {point}")
    fleet.play("deploy", limit=NODE)  # where the other had nothing left to do, it needed no lock
    assert fleet.on(NODE, "test -e /srv/forge/lock.json && echo held || echo free") == "free"


def test_two_deploys_at_once(fleet: Fleet, pair: tuple[str, str], database: None, source: Path) -> None:
    change(source, "two at once")
    with serving(fleet, "two deploys at once") as row:
        first = deploy_in_background(fleet, forge_migrations=["sleep 15", "alembic upgrade head"])
        wait_for_task(first, "Migrate the database")
        change(source, "the second of two")
        second = fleet.play("deploy", check=False, limit=NODE, forge_lock_wait=1)
        output, _errors = first.communicate(timeout=120)
        row["happened"] = "the first one ended well, the second one said who holds the lock"
    assert first.returncode == 0, output
    assert second.rc != 0, output + second.output
    assert "holds the lock since" in second.said()


@pytest.mark.thorough
def test_lock_is_kept_while_its_run_lasts_and_expires_soon_after(
    fleet: Fleet, pair: tuple[str, str], database: None, source: Path
) -> None:
    change(source, "heartbeat")
    run = deploy_in_background(fleet, forge_migrations=["sleep 34", "alembic upgrade head"])
    try:
        wait_for_task(run, "Migrate the database")
        first = json.loads(fleet.on(NODE, "cat /srv/forge/lock.json"))
        assert first["expires"] - time.time() < 130, "a controller that died does not hold it long"
        held = fleet.until(
            lambda: (found := json.loads(fleet.on(NODE, "cat /srv/forge/lock.json")))["expires"] > first["expires"]
            and found, 60, "the heartbeat",
        )  # fmt: skip
        assert (held["since"], held["token"]) == (first["since"], first["token"])
    finally:
        output, _errors = run.communicate(timeout=180)
    assert run.returncode == 0, output
    assert fleet.on(NODE, "test -e /srv/forge/lock.json && echo held || echo free") == "free"


@pytest.mark.thorough
def test_migrations_of_controllers_that_share_only_the_database(
    fleet: Fleet, pair: tuple[str, str], database: None, source: Path
) -> None:
    """Neither run has a host of the other one's."""
    change(source, "two fleets")
    timed = ["python -c \"import time; print('from', time.time()); time.sleep(5); print('to', time.time())\""]
    with serving(fleet, "two controllers without a common host migrate one database") as row:
        runs = [deploy_in_background(fleet, limit=host, forge_migrations=timed) for host in (NODE, "app13")]
        outputs = [run.communicate(timeout=180)[0] for run in runs]
        row["happened"] = "the second one waited for the first"
    assert [run.returncode for run in runs] == [0, 0], outputs
    spans = sorted((float(found[1]), float(found[2])) for found in
                   (re.search(r"from ([\d.]+)\W+to ([\d.]+)", output) for output in outputs))  # fmt: skip
    assert spans[0][1] <= spans[1][0], "one after the other"

    begun = f"begin; select pg_advisory_xact_lock({MIGRATIONS}), pg_sleep(60)"
    holder = subprocess.Popen(
        [str(LAB), "exec", "--set", SET, "db", "--", "runuser", "-u", "postgres", "--", "psql", "forge", "-c", begun],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    fleet.until(lambda: sql(fleet, "select count(*) from pg_locks where locktype = 'advisory'") != "0", what="the lock")
    answer = run_module(
        fleet, "migrate", app="forge", root="/srv", generation=fleet.live(NODE), commands=["false"], wait=1
    )
    sql(fleet, "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'")
    holder.wait(30)
    assert re.search(r"did not end within 1 s: a session of the role postgres\.", answer["msg"])


@pytest.mark.thorough
def test_host_that_goes_away_midway(fleet: Fleet, pair: tuple[str, str], database: None, source: Path) -> None:
    change(source, "host away")
    before = {host: fleet.live(host) for host in (NODE, "app13")}
    with serving(fleet, "another host goes away midway") as row:
        process = deploy_in_background(fleet, limit="forge_app")
        wait_for_task(process, "Migrate the database")
        fleet.lab("kill", "app13")
        output, _errors = process.communicate(timeout=300)
        left = fleet.live(NODE)
        fleet.lab("start", "app13")
        fleet.play("deploy")
        row["happened"] = "the release stopped before any switch; the next run ended it"
    assert process.returncode != 0, output
    assert left == before[NODE], "no host switched"
    assert {fleet.live(host).split("-")[0] for host in before} != {left.split("-")[0]}


@pytest.mark.thorough
def test_half_made_layer_cut_upload_and_wrong_owner(
    fleet: Fleet, pair: tuple[str, str], database: None, source: Path
) -> None:
    """What an earlier crash or a hand left behind is made anew beside what serves."""
    change(source, "half-made")
    fleet.on(NODE, """
        set -e; cd /srv/forge
        mkdir layers/.incoming-cut && head -c 100000 /dev/urandom > layers/.incoming-cut/layer.tar
        rm layers/$(ls layers | head -1)/.complete
        chown forge releases/$(basename $(readlink current) | cut -d- -f1)/src/thecodeforge/main.py""")  # fmt: skip
    with serving(fleet, "half-made layer, upload that was cut, wrong owner") as row:
        fleet.play("deploy", limit=NODE)
        row["happened"] = "made again, beside what served"
    assert fleet.on(NODE, "ls -A /srv/forge/layers | grep -c incoming", check=False) == "0"
    live = fleet.live(NODE)
    assert fleet.on(NODE, f"find /srv/forge/releases/{live[:12]} /srv/forge/layers ! -user root | wc -l") == "0"
