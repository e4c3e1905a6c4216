# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gunicorn worker that stands by until its generation is live, and drains before it stops: see forge_server.py."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import importlib
import os
import signal
import sys
import time
import warnings

from forge_server import SHUTDOWN, ForgeServer, StateFile, is_live
from gunicorn.arbiter import Arbiter
from uvicorn.config import Config

STOCK = []
with contextlib.suppress(ImportError):  # not installed, or not made for this Uvicorn
    from uvicorn_worker import UvicornWorker

    STOCK.append(UvicornWorker)
with contextlib.suppress(ImportError), warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from uvicorn.workers import UvicornWorker as OldUvicornWorker

    STOCK.append(OldUvicornWorker)
if len(STOCK) > 1 and hasattr(Config, "get_loop_factory") and "setup_event_loop" in STOCK[0].init_process.__code__.co_names:
    # uvicorn-worker 0.3, the last for Gunicorn 20, calls what Uvicorn 0.36 has given up; Uvicorn's own worker fits it.
    STOCK.reverse()
if not STOCK:
    raise ImportError("Neither uvicorn_worker nor uvicorn.workers can be imported: install uvicorn-worker.")

RESPAWN_DELAY = 1.0
MASTER = os.getpid()  # Gunicorn loads its worker class before it forks
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def hold_stops() -> None:
    if os.getpid() == MASTER:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)


def release_stops() -> None:
    if os.getpid() == MASTER:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def end_at_stops() -> None:
    """In a child of the master. One that is told to stop before init_signals() would do the master's own handler: take
    note and go on, and the master would then wait for it until graceful_timeout (gunicorn/arbiter.py stop())."""
    if os.getppid() == MASTER:
        try:
            for stop in STOPS:
                signal.signal(stop, signal.SIG_DFL)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


os.register_at_fork(before=hold_stops, after_in_parent=release_stops, after_in_child=end_at_stops)


class Draining:
    """What ForgeServer adds to a UvicornWorker, or to an app's own subclass of one."""

    server = None

    def init_process(self) -> None:
        """Boot and run. A worker that cannot boot must not stop a live generation.

        Exit code 3 or 4 of any worker halts Gunicorn (gunicorn/arbiter.py reap_workers()): right for a candidate,
        but not when the database is away for a moment while one worker is replaced.
        """
        state = StateFile(os.environ.get("FORGE_WORKER_STATE"), self.log)
        state.remove_stale(self.ppid)
        try:
            # In systemd's order (gunicorn/sock.py), and without Gunicorn's wrappers: uvloop would close their
            # descriptors twice (uvloop/handles/handle.pyx UVSocketHandle._close()).
            sockets = [wrapper.sock for wrapper in self.sockets]
            self.server = ForgeServer(self.config, sockets, state, self.cfg.workers)
            super().init_process()
        except (Exception, SystemExit) as failure:
            if self.server and self.server.started:
                raise
            if not is_live(default=False):
                if "FORGE_WORKER_CURRENT" in os.environ and isinstance(failure, SystemExit):
                    sys.exit(Arbiter.WORKER_BOOT_ERROR)  # any other code, and Gunicorn would try for ever
                raise
            self.log.error(
                "Worker failed to boot (%r), but its generation is live: next try in %g s",
                failure,
                RESPAWN_DELAY,
                exc_info=not isinstance(failure, SystemExit),
            )
            time.sleep(RESPAWN_DELAY)
            sys.exit(1)

    def init_signals(self) -> None:
        super().init_signals()
        chosen = signal.getsignal(signal.SIGABRT)
        faulthandler.enable()  # shows where a worker is stuck, when Gunicorn aborts it
        if callable(chosen):  # by the app's own class
            signal.signal(signal.SIGABRT, chosen)

    async def _serve(self) -> None:
        """As UvicornWorker._serve(), with our server. SIGQUIT, there without effect, makes it quick."""
        self.config.app = self.wsgi
        asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, self.server.quit)
        await self.server.serve(sockets=self.server.immediate)
        if not self.server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


def with_drain(worker: type) -> type:
    """A worker class with standby and drain; the class itself where that is not possible.

    Its overrides still apply, but for one of _serve(): whoever has that runs another server than ours.
    """
    stock = next((each for each in STOCK if issubclass(worker, each)), None)
    if stock is None or worker._serve is not stock._serve:
        return worker
    settings = {**worker.CONFIG_KWARGS, "timeout_graceful_shutdown": SHUTDOWN}
    return type(f"Draining{worker.__name__}", (Draining, worker), {"CONFIG_KWARGS": settings})


def load(path: str) -> type:
    """The class that package.module.Class names.

    :raises ImportError, AttributeError: when there is none.
    """
    module, _dot, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


ForgeWorker = with_drain(STOCK[0])

if __name__ == "__main__":  # says whether a class can drain, before anything serves with it
    try:
        print("drains" if issubclass(with_drain(load(sys.argv[1])), Draining) else "cannot drain")
    except Exception as error:
        print(f"problem {type(error).__name__}: {error}")
