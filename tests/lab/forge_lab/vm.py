# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real machine: a kernel, a disk and a power switch of its own. QEMU emulates it, so it needs no KVM, and is slow."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import time
from pathlib import Path

from . import images
from .machine import HOME, KEY, LabError, as_root, lock, need, run, say, until
from .nodes import ADMIN_ID, ensure_key, new_key
from .state import SSH_OPTIONS, USER

PLACE = HOME / "vm"
SYSTEM = "debian13"
CPUS, MEMORY_MB, DISK = 2, 2048, "8G"
BOOT = 300  # seconds from power to a login, on a loaded machine

PACKAGES = f"{images.PACKAGES} linux-image-cloud-amd64 initramfs-tools udev kmod e2fsprogs"
# Nothing that uses the network, or the disk, on its own: it would cost a minute of the emulated processor.
MASKED = """
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer
    systemd-networkd-wait-online.service motd-news.timer man-db.timer systemd-pcrmachine.service systemd-tpm2-setup.service
"""
LEFT_OUT = ("/usr/local/sbin/forge-lab-apt", "/etc/apt/apt.conf.d/90forge-lab")  # a machine shares no downloads
FILES = {
    "/etc/apt/apt.conf.d/90forge-lab": 'Acquire::Languages "none";\n',
    "/etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
    "/etc/hostname": "forge-vm\n",
    "/etc/hosts": "127.0.0.1 localhost forge-vm\n::1 localhost\n",
    # QEMU's user network: this machine is the gateway
    "/etc/systemd/network/10-forge.network": "[Match]\nType=ether\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n",
    "/etc/initramfs-tools/conf.d/forge": "MODULES=list\nCOMPRESS=gzip\n",
    "/etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\n",
    "/etc/systemd/journald.conf.d/forge-lab.conf": "[Journal]\nStorage=persistent\nSystemMaxUse=64M\n",
}
CUSTOMIZE = """\
set -eu
rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/0000*
chroot "$1" useradd --no-create-home --shell /bin/bash --comment 'lab administrator' admin
chroot "$1" systemctl --quiet mask {masked}
chroot "$1" systemctl --quiet enable systemd-networkd
chroot "$1" update-ca-certificates >/dev/null 2>&1
chroot "$1" update-initramfs -u
mkdir -p "$1"/var/log/journal
rm -rf "$1"/var/cache/apt/*.bin "$1"/var/cache/apt/archives/*.deb
find "$1"/var/lib/apt/lists -mindepth 1 -delete
touch -d 2020-01-01 "$1"/var/lib/apt/lists
touch "$1"/etc/.updated "$1"/var/.updated
"""
# The disk and the kernel with its first files come out of the directory that mmdebstrap has filled; the last is who asks.
PACK = """\
set -eu
rm -f "$1/etc/resolv.conf"; echo 'nameserver 10.0.2.3' >"$1/etc/resolv.conf"
cp "$(ls "$1"/boot/vmlinuz-* | tail -1)" "$2/kernel"
cp "$(ls "$1"/boot/initrd.img-* | tail -1)" "$2/initrd"
truncate -s {disk} "$2/disk.raw"
/sbin/mkfs.ext4 -q -F -d "$1" "$2/disk.raw"
chown -R "$3" "$2"
"""


def ensure() -> Path:
    """The directory with ``disk.raw``, ``kernel`` and ``initrd`` of a virgin machine; made when it is not there.

    :raises LabError: when this machine is not one that it can be made on, or lacks a program.
    """
    if platform.machine() != "x86_64":
        raise LabError(f"the virtual machine is one of x86_64, and this machine is {platform.machine()}.")
    need("mmdebstrap", "mkfs.ext4", "qemu-system-x86_64", "qemu-img")
    system = images.SYSTEMS[SYSTEM]
    ensure_key()
    files: dict[str, str | bytes] = {k: v for k, v in images.files_of(system).items() if k not in LEFT_OUT}
    files |= {**FILES, f"/home/{USER}/": "", f"/home/{USER}/.ssh/": ""}
    files[f"/home/{USER}/.ssh/authorized_keys"] = KEY.with_suffix(".pub").read_bytes()
    owned = [path for path in files if path.startswith(f"/home/{USER}/")]
    recipe = [sorted((k, str(v)) for k, v in files.items()), PACKAGES, MASKED, CUSTOMIZE, PACK, DISK]
    image = PLACE / f"image-{hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]}"
    with lock("vm-image"):
        if image.exists():
            return image
        began = time.monotonic()
        say("building the disk of the virtual machine")
        for old in PLACE.glob("image-*"):
            shutil.rmtree(old)
        with images.workshop("vm-image") as work:
            new_key(work / "host_key", "root@forge-vm")
            files["/etc/ssh/ssh_host_ed25519_key"] = (work / "host_key").read_bytes()
            modes = {**images.MODES, **dict.fromkeys(owned, 0o700), "/etc/ssh/ssh_host_ed25519_key": 0o600}
            packed = images.tar_of(files, modes, dict.fromkeys(owned, ADMIN_ID))
            root, made = work / "root", work / "made"
            images.bootstrap(system, work, root, PACKAGES, packed, CUSTOMIZE.format(masked=" ".join(MASKED.split())))
            made.mkdir()
            (work / "pack").write_text(PACK.format(disk=DISK))
            asker = f"{os.getuid()}:{os.getgid()}"
            run(as_root(["sh", str(work / "pack"), str(root), str(made), asker]), timeout=600)
            PLACE.mkdir(parents=True, exist_ok=True)
            made.rename(image)
        say(f"disk built in {time.monotonic() - began:.0f} s")
    return image


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


class Vm:
    """One machine. Its ports on 127.0.0.1 stay the same from one boot to the next; it ends with the thread that started it."""

    def __init__(self, image: Path, name: str = "vm", app_port: int = 8000) -> None:
        """
        :param image: of :func:`ensure`.
        :param name: of its files.
        :param app_port: that is reached as :attr:`port`.
        """
        self.image = image
        self.disk = PLACE / f"{name}.qcow2"
        self.console = PLACE / f"{name}.console"
        self._monitor = PLACE / f"{name}.qmp"
        self.app_port = app_port
        self.ssh_port, self.port = free_port(), free_port()
        self.qemu: subprocess.Popen[bytes] | None = None

    def new_disk(self) -> None:
        """Begin again with a virgin disk."""
        backing = ["-F", "raw", "-b", str(self.image / "disk.raw")]
        run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(self.disk)])

    def power_on(self, snapshot: str = "") -> None:
        """Start it; returns at once.

        :param snapshot: of :meth:`save`, to go on from; else it boots.
        """
        forwards = f"hostfwd=tcp:127.0.0.1:{self.ssh_port}-:22,hostfwd=tcp:127.0.0.1:{self.port}-:{self.app_port}"
        command = [
            *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64"),
            *("-name", "forge-vm", "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"),
            *("-smp", str(CPUS), "-m", str(MEMORY_MB), "-display", "none", "-nodefaults"),
            *("-kernel", str(self.image / "kernel"), "-initrd", str(self.image / "initrd")),
            *("-append", "root=/dev/vda rw console=ttyS0 quiet panic=-1 mitigations=off"),
            # writeback: what the guest has flushed is kept by this machine, also when QEMU is killed
            *("-drive", f"file={self.disk},format=qcow2,if=virtio,cache=writeback"),
            *("-nic", f"user,model=virtio-net-pci,{forwards}", "-device", "virtio-rng-pci"),
            *("-chardev", f"file,id=console,path={self.console}", "-serial", "chardev:console"),
            *("-qmp", f"unix:{self._monitor},server=on,wait=off"),
            *(("-loadvm", snapshot) if snapshot else ()),
        ]
        log = (PLACE / "qemu.log").open("ab")
        self.qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()

    def kill(self) -> None:
        """Cut its power: what the guest has not written to its disk by now is lost."""
        if self.qemu:
            self.qemu.kill()
            self.qemu.wait()
            self.qemu = None

    def wait(self, timeout: float = BOOT) -> float:
        """Seconds until a login over SSH works, and systemd has finished to boot.

        :raises LabError: when that takes too long.
        """
        began = time.monotonic()
        said = "nothing"
        for left in until(began + timeout, pause=0.5):
            if not self.qemu or self.qemu.poll() is not None:
                raise LabError(f"the virtual machine does not run; see {PLACE / 'qemu.log'}.")
            try:
                done = self.ssh("systemctl is-system-running --wait", timeout=min(left, 60))
            except LabError:
                continue
            said = done.stdout.strip() or done.stderr.strip()
            if done.stdout.strip() in ("running", "degraded"):
                return time.monotonic() - began
        raise LabError(f"the virtual machine did not boot within {timeout:.0f} s ({said}); see {self.console}.")

    def ssh(self, script: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a shell script as root.

        :raises LabError: when it does not end in time.
        """
        into = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={max(1, int(timeout))}", "-p", str(self.ssh_port)]
        login = ["ssh", "-i", str(KEY), *SSH_OPTIONS, *into, f"{USER}@127.0.0.1"]
        return run([*login, "sudo", "-n", "sh"], check=False, timeout=timeout, stdin=script.encode())

    def save(self, name: str) -> None:
        """Keep the state of the running machine, disk and memory, in its disk's file.

        :raises LabError: when QEMU cannot.
        """
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self._monitor))
            lines = monitor.makefile("rw")
            lines.readline()
            asked = ({"execute": "qmp_capabilities"},
                     {"execute": "human-monitor-command", "arguments": {"command-line": f"savevm {name}"}})  # fmt: skip
            for command in asked:
                lines.write(json.dumps(command) + "\n")
                lines.flush()
                while "return" not in (answer := json.loads(lines.readline())):
                    if "error" in answer:
                        raise LabError(f"QEMU does not save: {answer['error']['desc']}.")
            if answer["return"]:
                raise LabError(f"QEMU does not save: {answer['return'].strip()}.")

    def has(self, snapshot: str) -> bool:
        """Is there a state that was kept under this name? Asked while it is off."""
        listing = run(["qemu-img", "snapshot", "-l", str(self.disk)], check=False).stdout
        return any(line.split()[1:2] == [snapshot] for line in listing.splitlines())

    def inventory(self, path: Path, **groups: str) -> Path:
        """Write an inventory in which it is the host of each group.

        :param groups: name of a group to the host's name there.
        """
        host = {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.ssh_port,
            "ansible_user": USER,
            "ansible_ssh_private_key_file": str(KEY),
            "ansible_ssh_common_args": " ".join(SSH_OPTIONS),
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({group: {"hosts": {name: host}} for group, name in groups.items()}, indent=2))
        return path
