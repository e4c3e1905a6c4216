# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real machine, from nothing to a release, a rollback and a restart of the machine."""

from __future__ import annotations

import time
from pathlib import Path

from conftest import CLIENTS, HOST, SOON, Machine, change, load


def test_release_and_rollback_lose_nothing(kept: Machine, source: Path) -> None:
    before = kept.serving()
    change(source, "third")
    with load(kept, "a release", CLIENTS) as row:
        run = kept.play("deploy")
        row["happened"] = f"the new one serves, {run.seconds:.0f} s"
    after = kept.wait_until_served()
    assert after != before
    with load(kept, "a rollback", CLIENTS) as row:
        run = kept.play("rollback")
        row["happened"] = f"the old one serves, {run.seconds:.0f} s"
    assert kept.wait_until_served() == before


def test_restarted_machine_serves_what_it_served(kept: Machine) -> None:
    before, boot = kept.serving(), kept.run("cat /proc/sys/kernel/random/boot_id")
    why = "the machine is down"
    with load(kept, "systemctl reboot", may_lose=why) as row:
        kept.run("systemctl reboot", check=False)
        kept.until(
            lambda: kept.run("cat /proc/sys/kernel/random/boot_id", check=False) not in ("", boot), 300, "a boot"
        )
        kept.vm.wait()
        assert kept.wait_until_served() == before
        row["happened"] = "the same one serves after the boot"
    assert kept.get(HOST, "/readyz").status_code == 200
    with load(kept, "after that"):
        time.sleep(SOON)
