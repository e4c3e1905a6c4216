# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image of a virgin host, as a cloud provider would hand it over, from the distribution's packages."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import re
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .machine import HOME, PREFIX, LabError, as_root, lock, need, podman, run, say

PACKAGES = """
    systemd systemd-sysv libpam-systemd dbus openssh-server sudo python3 apt python3-apt
    iproute2 procps curl ca-certificates tzdata
"""

# Nothing here may wait for hardware, write to the kernel all nodes share, or use the network on its own.
MASKED = """
    systemd-modules-load.service systemd-sysctl.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount
    sys-kernel-debug.mount sys-kernel-tracing.mount systemd-udevd.service systemd-journald-audit.socket
    systemd-networkd.service systemd-networkd.socket systemd-networkd-wait-online.service systemd-resolved.service
    console-getty.service getty.target e2scrub_all.timer e2scrub_reap.service fstrim.timer
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer motd-news.timer
"""

APT_CACHE = "/var/cache/forge-lab-apt"  # inside a node; one directory for all nodes of an OS

FILES = {
    "/etc/apt/apt.conf.d/90forge-lab": f"""\
// A node starts without package lists, as a virgin host does. What one has downloaded, the others of its OS take
// from {APT_CACHE}. (apt locks its own directories, so they cannot be shared; mmdebstrap runs
// these hooks on the controller, where that directory is not.)
APT::Update::Pre-Invoke {{ "[ ! -d {APT_CACHE} ] || /usr/local/sbin/forge-lab-apt take"; }};
APT::Update::Post-Invoke-Success {{ "[ ! -d {APT_CACHE} ] || /usr/local/sbin/forge-lab-apt give-lists"; }};
DPkg::Pre-Invoke {{ "[ ! -d {APT_CACHE} ] || /usr/local/sbin/forge-lab-apt give-packages"; }};
Acquire::Languages "none";
""",
    "/usr/local/sbin/forge-lab-apt": f"""\
#!/bin/sh
# Called by apt (apt.conf.d/90forge-lab). Files appear whole or not at all; nothing here may fail an apt run.
shared={APT_CACHE} lists=/var/lib/apt/lists packages=/var/cache/apt/archives
[ -d $shared ] || exit 0
case $1 in
take)
    find $shared -maxdepth 1 -name '*.deb' -exec ln -st $packages {{}} + 2>/dev/null
    if [ -f $shared/lists.tar ] && ! ls $lists/*InRelease >/dev/null 2>&1; then
        tar -C $lists -xf $shared/lists.tar
        touch $lists  # its age is all Ansible's cache_valid_time looks at
    fi ;;
give-lists)
    if [ ! -f $shared/lists.tar ] || [ "$(find $lists -name '*InRelease' -newer $shared/lists.tar)" ]; then
        part=$(mktemp $shared/.part.XXXXXX) || exit 0
        tar -C $lists --exclude=./lock --exclude=./partial --exclude=./auxfiles -cf "$part" . &&
            mv "$part" $shared/lists.tar || rm -f "$part"
    fi ;;
give-packages)
    for deb in $packages/*.deb; do
        name=${{deb##*/}}
        [ -f "$deb" ] && [ ! -L "$deb" ] && [ ! -e "$shared/$name" ] || continue
        part=$(mktemp $shared/.part.XXXXXX) || exit 0
        cp "$deb" "$part" && chmod 644 "$part" && mv "$part" "$shared/$name" || rm -f "$part"
    done ;;
esac
exit 0
""",
    "/etc/ssh/sshd_config.d/10-forge-lab.conf": """\
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
""",
    "/etc/sudoers.d/90-admin": "admin ALL=(ALL) NOPASSWD:ALL\n",
    "/etc/systemd/journald.conf.d/forge-lab.conf": """\
# the kernel's log is the controller's
[Journal]
Storage=persistent
SystemMaxUse=64M
ReadKMsg=no
""",
    # from Debian 13 on /etc/default/locale becomes a link to the other
    "/etc/default/locale": "LANG=C.UTF-8\n",
    "/etc/locale.conf": "LANG=C.UTF-8\n",
}
MODES = {"/usr/local/sbin/forge-lab-apt": 0o755, "/etc/sudoers.d/90-admin": 0o440}

DPKG_OPTIONS = (
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)

# Runs on the controller when all packages are in; $1 is the root of the image.
CUSTOMIZE = """\
set -eu
rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/0000* "$1"/etc/ssh/ssh_host_*
chroot "$1" useradd --create-home --shell /bin/bash --comment 'lab administrator' admin
chroot "$1" systemctl --quiet mask {masked}
chroot "$1" update-ca-certificates >/dev/null 2>&1
mkdir -p "$1"/var/log/journal "$1"{cache}
rm -rf "$1"/var/cache/apt/*.bin "$1"/var/cache/apt/archives/*.deb
find "$1"/var/lib/apt/lists -mindepth 1 -delete
touch -d 2020-01-01 "$1"/var/lib/apt/lists
touch "$1"/etc/.updated "$1"/var/.updated  # or the first boot rebuilds caches that are fresh
"""


@dataclass(frozen=True)
class Os:
    """One we can make; `lab up` names it NODE=<name>:…"""

    name: str
    suite: str
    archive: str
    security: str
    components: str
    keyring: Path  # on this machine
    signed_by: str  # in the image

    def sources(self) -> str:
        """deb822, as in a cloud image."""
        pairs = ((self.archive, f"{self.suite} {self.suite}-updates"), (self.security, f"{self.suite}-security"))
        return "\n".join(
            f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: {self.components}\nSigned-By: {self.signed_by}\n"
            for uri, suites in pairs
        )

    def lines(self) -> list[str]:
        """The same for mmdebstrap."""
        return [
            f"deb {self.archive} {self.suite} {self.components}",
            f"deb {self.archive} {self.suite}-updates {self.components}",
            f"deb {self.security} {self.suite}-security {self.components}",
        ]


def _debian(name: str, suite: str) -> Os:
    archive = os.environ.get("FORGE_LAB_DEBIAN", "http://deb.debian.org/debian").rstrip("/")
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    return Os(name, suite, archive, f"{archive}-security", "main", Path(keyring), keyring)


def _ubuntu(name: str, suite: str) -> Os:
    x86 = platform.machine() == "x86_64"
    usual = "http://archive.ubuntu.com/ubuntu" if x86 else "http://ports.ubuntu.com/ubuntu-ports"
    archive = os.environ.get("FORGE_LAB_UBUNTU", usual).rstrip("/")
    # Ubuntu's archive key of 2018, F6ECB3762474EDA9D21B7022871920D1991BC93C: Debian 12 has no package with it
    key = Path(__file__).with_name("ubuntu-archive-2018.asc")
    inside = "/usr/share/keyrings/ubuntu-archive-keyring.gpg"
    return Os(name, suite, archive, archive, "main universe", key, inside)


SYSTEMS = {
    system.name: system
    for system in (
        _debian("debian12", "bookworm"),
        _debian("debian13", "trixie"),
        _debian("debian14", "forky"),
        _ubuntu("ubuntu2204", "jammy"),
        _ubuntu("ubuntu2404", "noble"),
    )
}


def apt_settings() -> dict[str, str]:
    """How this machine reaches the archive (proxies, a clock that is off); the nodes need the same."""
    wanted = re.compile(r'^(Acquire::(?:\w+::Proxy(?:::[^ ]+)?|Check-Date|Check-Valid-Until)) "(.+)";$')
    dump = run(["apt-config", "dump"], check=False).stdout
    matches = [match for line in dump.splitlines() if (match := wanted.match(line))]
    settings: dict[str, str] = {match[1]: match[2] for match in matches}
    for scheme in ("http", "https"):
        if proxy := os.environ.get(f"{scheme}_proxy") or os.environ.get(f"{scheme.upper()}_PROXY"):
            settings.setdefault(f"Acquire::{scheme}::Proxy", proxy)
    return settings


def extra_certificates() -> list[str]:
    """The authorities this machine trusts beyond the distribution's own, as those of a TLS-inspecting proxy."""
    certificate = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

    def read(path: Path) -> dict[str, str]:
        found = certificate.findall(path.read_text(errors="replace")) if path.is_file() else []
        return {"".join(pem.split()): pem + "\n" for pem in found}

    named = (os.environ.get(name) for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"))
    bundles = {Path(name) for name in named if name} or {Path("/etc/ssl/certs/ca-certificates.crt")}
    trusted: dict[str, str] = {}
    for bundle in sorted(bundles):
        trusted |= read(bundle)
    for public in Path("/usr/share/ca-certificates").rglob("*.crt"):
        for key in read(public):
            trusted.pop(key, None)
    return list(trusted.values())


def files_of(system: Os) -> dict[str, str]:
    files = {**FILES, f"/etc/apt/sources.list.d/{system.name.rstrip('0123456789')}.sources": system.sources()}
    if settings := apt_settings():
        files["/etc/apt/apt.conf.d/80controller"] = "".join(f'{k} "{v}";\n' for k, v in settings.items())
    for number, pem in enumerate(extra_certificates()):
        files[f"/usr/local/share/ca-certificates/controller-{number}.crt"] = pem
    return files


def tar_of(files: Mapping[str, str | bytes], modes: dict[str, int], owners: dict[str, int] | None = None) -> bytes:
    """Files and the directories they need, owned by root unless said otherwise."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.mode = modes.get(path, 0o644)
            entry.uid = entry.gid = (owners or {}).get(path, 0)
            entry.mtime = int(time.time())
            if path.endswith("/"):
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
            else:
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def reference(system: Os) -> str:
    """Name and tag; the tag is the hash of all that goes in, so a changed recipe is another image."""
    recipe = [system.sources(), files_of(system), sorted(MODES.items()), PACKAGES, MASKED, DPKG_OPTIONS, CUSTOMIZE]
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
    return f"localhost/{PREFIX}{system.name}:{digest}"


def ensure(system: Os) -> str:
    """The image's name; built when it is not there."""
    name = reference(system)
    if podman("image", "exists", name, check=False).returncode == 0:
        return name
    need("mmdebstrap", "podman")
    with lock(f"image-{system.name}"):
        if podman("image", "exists", name, check=False).returncode == 0:
            return name
        began = time.monotonic()
        say(f"{system.name}: building the image")
        _build(system, name)
        say(f"{system.name}: image built in {time.monotonic() - began:.0f} s")
    return name


@contextmanager
def workshop(name: str) -> Iterator[Path]:
    """A directory to build something in, with a ``tmp``; it goes, whatever is mounted in it."""
    work = HOME / "tmp" / name
    remove_tree(work)
    (work / "tmp").mkdir(parents=True)
    try:
        yield work
    finally:
        remove_tree(work)


def alike(work: Path) -> list[str]:
    """What starts a program that leaves nothing outside ``work``, and ends with us."""
    return ["env", f"TMPDIR={work / 'tmp'}", "setpriv", "--pdeathsig", "KILL"]


def bootstrap(system: Os, work: Path, target: Path, packages: str, files: bytes, script: str) -> None:
    """Install a distribution into a tar archive, or into a directory when its name has no ``.tar``.

    :param files: a tar archive of what lies in it before it is customized.
    :param script: what runs on this machine when all is in; ``$1`` is the root.
    :raises LabError: when a package or the keyring cannot be had.
    """
    if not system.keyring.exists():
        raise LabError(f"{system.keyring} is missing on this machine; run `lab setup`.")
    (work / "files.tar").write_bytes(files)
    (work / "customize").write_text(script)
    apart = ["unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]  # with all it has mounted
    command = [
        *alike(work),
        *apart,
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--skip=cleanup/apt"),
        f"--include={','.join(packages.split())}",
        f"--keyring={system.keyring}",
        *(f"--dpkgopt={option}" for option in DPKG_OPTIONS),
        *(f"--aptopt={key} {json.dumps(value)}" for key, value in apt_settings().items()),
        f"--customize-hook=tar-in {work / 'files.tar'} /",
        f'--customize-hook=sh {work / "customize"} "$1"',
        *(system.suite, str(target), *system.lines()),
    ]
    run(as_root(command), timeout=900, log=HOME / "logs" / f"{work.name}.log")


def _build(system: Os, name: str) -> None:
    changes = ('CMD ["/sbin/init"]', "STOPSIGNAL SIGRTMIN+3", f"LABEL forge-lab.os={system.name}")
    with workshop(f"image-{system.name}") as work:
        root = work / "root.tar"
        script = CUSTOMIZE.format(masked=" ".join(MASKED.split()), cache=APT_CACHE)
        bootstrap(system, work, root, PACKAGES, tar_of(files_of(system), MODES), script)
        importing = [
            *alike(work),
            *("podman", "import", "--quiet"),
            *(part for change in changes for part in ("--change", change)),
            *(str(root), name),
        ]
        run(as_root(importing), timeout=300)
    listing = ("images", "--filter", "until=168h", "--format", "{{.Repository}}:{{.Tag}}")
    for old in podman(*listing).stdout.split():
        if old.startswith(f"localhost/{PREFIX}") and old != name:
            podman("rmi", old, check=False)  # one that a node still uses stays


def remove_tree(path: Path) -> None:
    """Delete a directory that a killed build may have left with something mounted in it; never cross a mount."""
    if not path.exists():
        return
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{path}/")), reverse=True):
        run(as_root(["umount", mount]))
    run(as_root(["rm", "-rf", "--one-file-system", str(path)]))
