# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker with other loops and protocols, and the stock one, to compare."""

import signal
import time

from forge_worker import STOCK, ForgeWorker, with_drain


class Asyncio(ForgeWorker):
    CONFIG_KWARGS = {**ForgeWorker.CONFIG_KWARGS, "loop": "asyncio", "http": "h11"}


class Wsproto(ForgeWorker):
    CONFIG_KWARGS = {**ForgeWorker.CONFIG_KWARGS, "ws": "wsproto"}


class LegacyWebsockets(ForgeWorker):
    CONFIG_KWARGS = {**ForgeWorker.CONFIG_KWARGS, "ws": "websockets"}


class Stock(STOCK[0]):
    pass


class LateSignals(ForgeWorker):
    """Between the fork and its own signal handlers passes the time that a busy machine may take."""

    def init_process(self):
        time.sleep(1)
        super().init_process()


class Own(STOCK[0]):
    """As apps have one: does something of its own when Gunicorn aborts it."""

    CONFIG_KWARGS = {**STOCK[0].CONFIG_KWARGS, "server_header": False}

    def init_signals(self) -> None:
        super().init_signals()
        signal.signal(signal.SIGABRT, self.handle_own_abort)

    def handle_own_abort(self, _signal, _frame) -> None:
        self.log.info("aborted in its own way")


Combined = with_drain(Own)
