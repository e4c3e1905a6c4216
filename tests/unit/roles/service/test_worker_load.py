# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing is lost under load: by switches, by replaced workers, by a reload."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from worker_harness import LOOPS, Load, eventually, on_both_loops

pytestmark = pytest.mark.heavy

CLIENTS = {
    "keepalive": 4,
    "closing": 4,
    "post": 4,
    "pausing": 3,
    "late": 3,
    "slow": 2,
    "events": 2,
    "websocket": 2,
}


async def swaps_under_load(site, worker: str, swaps: int) -> None:
    live = await asyncio.to_thread(site.live, "g0", worker=worker, workers=2, drain=3)
    async with Load(site.address, **CLIENTS) as load:
        for number in range(1, swaps + 1):
            candidate = site.generation(f"g{number}", worker=worker, workers=2, drain=3)
            await asyncio.to_thread(candidate.wait_for, "standby")
            assert candidate.name not in load.served_by
            site.switch_to(candidate.name)
            await asyncio.to_thread(candidate.wait_for, "public")
            for back in (True, False):
                live.stand_by.touch()
                await asyncio.to_thread(live.wait_for, "standby")
                if back:
                    live.stand_by.unlink()
                    await asyncio.to_thread(live.wait_for, "public")
            live.stop()
            assert await asyncio.to_thread(live.ended) == 0
            assert "Traceback" not in live.said
            live = candidate
        answered_before = load.answered.total()
        await asyncio.sleep(0.5)
        assert load.answered.total() > answered_before
    print(f"{worker}: {swaps} swaps, answered {dict(load.answered)}, lost {dict(load.lost)}")
    assert not load.lost, load.reasons[:20]
    assert set(load.answered) == set(CLIENTS)
    assert len(load.served_by) == swaps + 1


def test_no_request_is_lost_by_a_swap(two_sites):
    on_both_loops(two_sites, lambda site, worker: swaps_under_load(site, worker, 1))


def test_no_request_is_lost_by_a_swap_of_one_process(site):
    asyncio.run(swaps_under_load(site, "uvicorn", 1))


@pytest.mark.slow
@pytest.mark.parametrize("worker", LOOPS)
def test_no_request_is_lost_by_many_swaps(site, worker):
    asyncio.run(swaps_under_load(site, worker, int(os.environ.get("SWAPS", 15))))


def test_reload_and_replaced_workers_lose_nothing(site):
    """Gunicorn's reload, and workers that have served max_requests."""
    short = {name: CLIENTS[name] for name in ("keepalive", "closing", "post", "pausing", "late")}

    async def scenario():
        generation = await asyncio.to_thread(
            site.live, "only", workers=2, drain=3, max_requests=1500, max_requests_jitter=1000
        )
        async with Load(site.address, **short) as load:
            first = generation.pids()
            await asyncio.to_thread(eventually, lambda: generation.said.count("Booting worker") >= 5)
            generation.stop(signal.SIGHUP)
            await asyncio.to_thread(eventually, lambda: not set(first) & set(generation.pids()))
        return load

    load = asyncio.run(scenario())
    assert not load.lost, load.reasons[:20]


def test_killed_worker_is_replaced_and_takes_only_its_own_requests(site):
    clients = 6

    async def scenario():
        generation = await asyncio.to_thread(site.live, "only", workers=2)
        async with Load(site.address, keepalive=clients // 2, closing=clients // 2) as load:
            await asyncio.sleep(0.3)
            victim = generation.pids()[0]
            os.kill(victim, signal.SIGKILL)
            await asyncio.to_thread(eventually, lambda: victim not in generation.state and len(generation.state) == 2)
            lost = load.lost.total()
            await asyncio.sleep(0.5)
            assert load.lost.total() == lost
        return lost

    assert asyncio.run(scenario()) <= clients
