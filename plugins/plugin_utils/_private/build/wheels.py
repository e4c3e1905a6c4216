# Copyright: The Code Forge. GNU General Public License v3.0-or-later, see LICENSE
"""From a lock to the wheels that one platform needs, every one checked against its hash."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ....module_utils._private.reproducible import EPOCH
from .compiled import Job, NotHere, fetch_sdist, find_wheel, keep_wheel
from .errors import BuildError
from .fetch import address_of, fetch, listing, name_of
from .cache import digest, file_digest, keep, used
from .index import Index, Session
from .lockfile import Pin
from .target_platform import Platform

SESSIONS = 4


def gather_wheels(chosen: list[Pin], destination: Path, platform: Platform, cache: Path, index: Index) -> list[Pin]:
    """Put the wheels of a platform into a directory; a release that has none is built, once.

    :returns: the same releases with the hashes of what is to be installed.
    :raises NotHere: for what has to be compiled on a host first, all of it.
    :raises BuildError: naming the package that has no wheel for the platform, or whose hash differs.
    """
    left = fetch_from_addresses(chosen, destination, platform, index)
    built, jobs = dict[str, Pin](), list[Job]()
    while left and (words := download(left, destination, platform, index)):
        absent = re.search(r"No matching distribution found for ([A-Za-z0-9._-]+?)==", words)
        found = [pin for pin in left if absent and pin.name == canonicalize_name(absent[1])]
        if not found or is_unreachable(words):
            raise BuildError(explain_pip(words, platform))
        left.remove(found[0])
        try:
            wheel = build_wheel(found[0], platform, cache, index)
        except NotHere as wanted:
            jobs += wanted.jobs
            continue
        shutil.copy(wheel, destination)
        built[found[0].name] = Pin(found[0].requirement, (f"sha256:{file_digest(wheel)}",))
    if jobs:
        raise NotHere(jobs)
    return [built.get(pin.name, pin) for pin in chosen]


def fetch_wheels(chosen: list[Pin], destination: Path, platform: Platform, index: Index) -> str:
    """Download wheels. Returns pip's words when that failed."""
    left = fetch_from_addresses(chosen, destination, platform, index)
    return download(left, destination, platform, index) if left else ""


def fetch_from_addresses(chosen: list[Pin], destination: Path, platform: Platform, index: Index) -> list[Pin]:
    """Download the wheels that uv knows the addresses of: it asks for them all at once, pip reads page after page.

    :returns: those that were not had so. Why, pip says best when it looks for them itself.
    """
    found, _words = listing(chosen, platform.minor, index)

    def fetch_some(pins: list[Pin]) -> list[Pin]:
        session, left = Session(index), list(pins)
        for pin in pins:
            wheels = {name_of(each): address_of(each) for each in found.get(pin.name, {}).get("wheels", [])}
            best = platform.best(wheels)
            try:
                if best:
                    fetch(wheels[best], destination / best, pin.hashes, session, best)
                    left.remove(pin)
            except BuildError:
                break  # where nobody answers, each would take as long
        return left

    with ThreadPoolExecutor(SESSIONS) as pool:
        lefts = pool.map(fetch_some, [chosen[n::SESSIONS] for n in range(SESSIONS)])
        return [pin for left in lefts for pin in left]


def download(chosen: list[Pin], destination: Path, platform: Platform, index: Index) -> str:
    """Download wheels as pip finds them. Returns its words when that failed."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as listed:
        listed.writelines(map(str, chosen))
        listed.flush()
        done = index.pip(
            "download", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", listed.name,
            "--dest", str(destination), *pip_target(platform),
        )  # fmt: skip
    return "" if done.returncode == 0 else done.stderr or "pip failed"


def pip_target(platform: Platform) -> list[str]:
    abi = "cp" + platform.minor.replace(".", "")
    options = ["--implementation", "cp", "--python-version", platform.minor]
    for tag in platform.tags():
        options += ["--platform", tag]
    return [*options, "--abi", abi, "--abi", "abi3", "--abi", "none"]


def is_unreachable(words: str) -> re.Match[str] | None:
    return re.search(r"Retry\(total=0,.* broken by '(.*)': |problem confirming the ssl certificate: (.*)", words)


def explain_pip(words: str, platform: Platform) -> str:
    """pip's complaint as one sentence."""
    unreachable = is_unreachable(words)
    if unreachable:
        cause = unreachable[1] or unreachable[2]
        return f"The package index cannot be reached (forge_build_index_url, forge_build_ca_bundle): {cause}."
    missing = re.search(r"No matching distribution found for (\S+)", words)
    if missing:
        return f"There is no wheel of {missing[1]} for {platform}, or the index does not have that release."
    if "DO NOT MATCH THE HASHES" in words:
        package = re.search(r"^\s+(\S+==\S+|\S+) from ", words, re.MULTILINE)
        return f"The index serves {package[1] if package else 'a package'} with another hash than the lock: not used."
    return f"Could not download the dependencies for {platform}: {words.strip()[-1500:]}"


def build_wheel(pin: Pin, platform: Platform, cache: Path, index: Index) -> Path:
    """The wheel of a release that has only its source: built on the controller when it will run on the platform.

    :raises NotHere: when it has to be compiled on a host of the platform.
    :raises BuildError: when the index does not serve it.
    """
    shelf = cache / "built" / digest(str(pin).encode(), platform.minor.encode(), platform.machine.encode())[:16]
    kept = find_wheel(shelf, platform)
    if kept:
        return kept
    interpreter, builder = builder_for(platform, index)
    with tempfile.TemporaryDirectory() as scratch:
        listed = Path(scratch) / "requirements.txt"
        listed.write_text(str(pin), encoding="utf-8")
        done = index.pip(
            "wheel", "--no-deps", "--no-binary", pin.name, "--require-hashes", "--requirement", str(listed),
            "--wheel-dir", str(Path(scratch) / "out"),
            python=interpreter, SOURCE_DATE_EPOCH=EPOCH,
        )  # fmt: skip
        if done.returncode != 0:
            if re.search(rf"distribution found for {re.escape(pin.requirement.name)}==|DO NOT MATCH", done.stderr):
                raise BuildError(explain_pip(done.stderr, platform))
            why = f"building it on the controller failed: {' '.join(done.stderr.split())[-600:]}"
        else:
            made = next((Path(scratch) / "out").glob("*.whl"))
            if platform.takes(made.name, builder):
                return keep_wheel(shelf, made, builder)
            why = f"one built on the controller ({builder}) would not run there."
    source = partial(fetch_sdist, pin, platform, index)
    raise NotHere([Job(str(pin.requirement), platform, shelf, source, f"and {why}")])


def builder_for(platform: Platform, index: Index) -> tuple[str, Platform]:
    """The controller's interpreter that is closest to a platform, and what the controller is with it."""
    here = Platform.here()
    python = index.uv("python", "find", "--no-project", platform.minor)
    if python.returncode != 0:
        return sys.executable, here
    return python.stdout.strip(), Platform(platform.python, here.machine, here.glibc)


def fetch_installer(cache: Path, platform: Platform, index: Index) -> Path:
    """The uv that installs layers on hosts: the controller's version, for the hosts' machine, checked by hash.

    :returns: path of its wheel.
    :raises BuildError: when it cannot be had, or is not what was fetched first.
    """
    version = index.uv("--version").stdout.split()[1]
    shelf = cache / "tools"
    wheel = shelf / f"uv-{version}-{platform.machine}.whl"
    locked = shelf / f"{wheel.name}.sha256"
    if wheel.is_file() and locked.is_file():
        if file_digest(wheel) != locked.read_text(encoding="ascii").strip():
            raise BuildError(f"{wheel} was changed since it was fetched: delete it and run again.")
        used(locked)
        return used(wheel)
    pin = Pin(Requirement(f"uv=={version}"), ())
    found, words = listing([pin], platform.minor, index)
    wheels = found.get(pin.name, {}).get("wheels", [])
    known = {name_of(each): each for each in wheels if each.get("hashes", {}).get("sha256")}
    best = platform.best(known)
    if best is None:
        why = f"The package index has no uv {version} for {platform.machine}, or no sha256 of it."
        raise BuildError(f"{why} {words.strip()[-600:]}".strip())
    wheel.unlink(missing_ok=True)
    hashes = [f"sha256:{known[best]['hashes']['sha256']}"]
    fetch(address_of(known[best]), wheel, hashes, index, f"uv {version}", "the index says")
    locked.unlink(missing_ok=True)
    keep(locked, f"{file_digest(wheel)}\n".encode(), [])
    return wheel
