# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
# Added to the reference app by the bench: what clients do that a part of the store is too quick for.
import asyncio

from fastapi import WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse


@app.get("/bench/slow")
async def bench_slow() -> dict[str, str]:
    await asyncio.sleep(5)
    return {"generation": app.state.settings.generation}


@app.get("/bench/events")
async def bench_events() -> StreamingResponse:
    async def events():
        while True:
            yield f"data: {app.state.settings.generation}\n\n"
            await asyncio.sleep(0.5)

    return StreamingResponse(events(), media_type="text/event-stream")


@app.websocket("/bench/echo")
async def bench_echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(app.state.settings.generation)
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        pass
