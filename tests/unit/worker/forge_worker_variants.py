"""The worker with other loops and protocols, and the stock one, to compare."""

import time

from forge_worker import ForgeWorker, UvicornWorker


class Asyncio(ForgeWorker):
    CONFIG_KWARGS = {**ForgeWorker.CONFIG_KWARGS, "loop": "asyncio", "http": "h11"}


class Wsproto(ForgeWorker):
    CONFIG_KWARGS = {**ForgeWorker.CONFIG_KWARGS, "ws": "wsproto"}


class LegacyWebsockets(ForgeWorker):
    CONFIG_KWARGS = {**ForgeWorker.CONFIG_KWARGS, "ws": "websockets"}


class Stock(UvicornWorker):
    pass


class LateSignals(ForgeWorker):
    """Between the fork and its own signal handlers passes the time that a busy machine may take."""

    def init_process(self):
        time.sleep(1)
        super().init_process()
