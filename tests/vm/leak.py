# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
# Added to the app by the tests of the virtual machine.
LEAKED = []


@app.get("/misbehave/leak")
async def misbehave_leak() -> dict[str, int]:
    LEAKED.append(bytearray(b"x" * (16 << 20)))
    return {"megabytes": 16 * len(LEAKED)}
