"""The worker with other loops and protocols, and the stock one, to compare."""

from forge_worker import ForgeWorker, UvicornWorker


class Asyncio(ForgeWorker):
    CONFIG_KWARGS = {**ForgeWorker.CONFIG_KWARGS, "loop": "asyncio", "http": "h11"}


class Wsproto(ForgeWorker):
    CONFIG_KWARGS = {**ForgeWorker.CONFIG_KWARGS, "ws": "wsproto"}


class LegacyWebsockets(ForgeWorker):
    CONFIG_KWARGS = {**ForgeWorker.CONFIG_KWARGS, "ws": "websockets"}


class Stock(UvicornWorker):
    pass
