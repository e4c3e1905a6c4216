# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""However a user reaches a host and becomes root there, and whatever that host speaks: the same is read of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Fleet
from tiny import write_project

PASSWORD = "hunter22-of-ops"
# A person whose sudo wants a password and a terminal; root with a key and a password; a language that is not English.
LIFE = f"""
useradd -m -s /bin/bash ops; echo 'ops:{PASSWORD}' | chpasswd; echo 'root:{PASSWORD}' | chpasswd
printf 'ops ALL=(ALL) ALL\\nDefaults:ops requiretty\\n' > /etc/sudoers.d/ops
for home in /root /home/ops; do install -d -m 700 $home/.ssh; cp /home/admin/.ssh/authorized_keys $home/.ssh/; done
chown -R ops: /home/ops/.ssh
echo 'PermitRootLogin prohibit-password' > /etc/ssh/sshd_config.d/00-root.conf; systemctl reload ssh
apt-get -qq update && apt-get -qq install --yes opendoas locales; echo 'permit ops' > /etc/doas.conf
sed -i 's/^# tr_TR/tr_TR/' /etc/locale.gen; locale-gen; echo LANG=tr_TR.ISO-8859-9 > /etc/default/locale
"""
UNDO = """
userdel -rf ops; passwd -l root; rm -rf /etc/sudoers.d/ops /root/.ssh /etc/ssh/sshd_config.d/00-root.conf /etc/default/locale
systemctl reload ssh
"""
AS_OPS = {"ansible_user": "ops", "ansible_become_password": PASSWORD}
WAYS: dict[str, dict[str, Any]] = {
    "root": {"ansible_user": "root", "ansible_become": False},
    "sudo on a terminal": {**AS_OPS, "ansible_pipelining": False},
    "su": {**AS_OPS, "ansible_become_method": "ansible.builtin.su"},
    "doas": {**AS_OPS, "ansible_become_method": "community.general.doas"},
    "discovered Python": {"ansible_python_interpreter": "auto_silent"},
}


@pytest.fixture(scope="module")
def host(box: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    shop = write_project(tmp_path_factory.mktemp("access") / "shop", "uvicorn")
    settings = {"forge_app": "access", "forge_listen": ["8066"], "forge_source": str(shop), "forge_environment": {}}
    box.on("box", LIFE)
    yield Fleet(
        {**settings, "forge_target": "shop.main:app", "forge_migrations": [], "forge_schema_version": ""},
        lab_set=box.lab_set,
        without_database=True,
    )
    box.on("box", UNDO)


@pytest.mark.parametrize("way", WAYS)
def test_a_host_is_read_however_one_becomes_root(host: Fleet, way: str) -> None:
    run = host.play("check", **WAYS[way])
    assert run.changed("box") == 0
    assert PASSWORD not in run.output
