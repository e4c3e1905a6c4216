# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Package indexes, artifacts and repositories behind an authority of one's own, a proxy and a login."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.artifact import download
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.cache import file_digest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.errors import BuildError
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.origin import open_origin
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.build.workspace import Workspace
from building import build, installed
from network import NAME, Authority, Proxy, make_authority, proxied
from package_index import served
from test_kinds import APP, HERE, World, world  # noqa: F401 (a fixture)

LOGIN = "me:hunter2-hunter2"


def commit(root: Path) -> str:
    """Make a repository of a directory; its commit."""
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-b", "main"], ["add", "."], [*identity, "commit", "--quiet", "-m", "x"]):
        subprocess.run(["git", "-C", root, *command], check=True, capture_output=True)
    done = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(world: World, authority: Authority) -> Iterator[str]:  # noqa: F811
    """The index of the other tests, over TLS."""
    with served(world.root / "index", tls=authority.context()) as url:
        yield url


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's own helps, and nothing goes past a proxy."""
    for name in ("SSL_CERT_DIR", "SSL_CERT_FILE", "PIP_CERT", "GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
                 "NO_PROXY", "no_proxy", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


def asked(proxy: Proxy, what: str) -> bool:
    return any(what in each for each in proxy.asked)


def installs(world: World, name: str, **index: str) -> bool:  # noqa: F811
    """Whether an app is built from an index."""
    source = world.write(name, {"main.py": APP, "requirements.txt": "dep\npure\n"})
    made = build(source, "main:app", [HERE], Workspace(world.root / f"{name}-cache", **index))
    return {"dep", "pure", "gunicorn"} <= installed(made).keys()


def test_an_index_with_an_authority_of_ones_own(world: World, secure: str, authority: Authority, alone: None) -> None:  # noqa: F811
    assert installs(world, "secured", index_url=f"{secure}/simple", ca_bundle=str(authority.bundle))
    with pytest.raises(BuildError, match=r"forge_build_ca_bundle"):
        installs(world, "unsecured", index_url=f"{secure}/simple")


def test_an_index_behind_a_proxy(world: World, alone: None) -> None:  # noqa: F811
    with proxied(int(urlsplit(world.url).port or 0)) as proxy:
        assert installs(world, "proxied", index_url=f"http://{NAME}/simple", proxy=proxy.url)
    assert asked(proxy, f"GET http://{NAME}/simple/dep/")
    with pytest.raises(BuildError, match=r"(could not be (locked|installed)|cannot be downloaded): .*\(Package index: "):
        installs(world, "unproxied", index_url=f"http://{NAME}/simple")


def test_an_index_behind_both(world: World, secure: str, authority: Authority, alone: None) -> None:  # noqa: F811
    with proxied(int(urlsplit(secure).port or 0)) as proxy:
        options = {"index_url": f"https://{NAME}/simple", "proxy": proxy.url, "ca_bundle": str(authority.bundle)}
        assert installs(world, "both", **options)
    assert asked(proxy, f"CONNECT {NAME}:443")


@pytest.mark.parametrize("login", ["", "me:expired@"])
def test_an_index_that_refuses_its_user_is_not_one_that_lacks_a_package(world: World, alone: None, login: str) -> None:  # noqa: F811
    with served(world.root / "index", login=LOGIN) as url, pytest.raises(BuildError) as caught:
        installs(world, f"refused{len(login)}", index_url=f"{url.replace('//', f'//{login}')}/simple")
    assert re.search(r"could not be locked: An index URL .*401 Unauthorized\): give its user and password in", str(caught.value))
    assert "not found" not in str(caught.value)
    assert "expired" not in str(caught.value)


def test_an_artifact_at_an_address(
    world: World, secure: str, authority: Authority, alone: None, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    path = world.root / "index" / "fetched.tar"
    path.write_bytes(b"an artifact")
    bundle = str(authority.bundle)
    found = download(f"{secure}/fetched.tar", file_digest(path), Workspace(tmp_path / "one", ca_bundle=bundle))
    assert found.read_bytes() == b"an artifact"
    with pytest.raises(
        BuildError, match=r"^forge_source: https://.* cannot be downloaded: .*CERTIFICATE_VERIFY_FAILED"
    ):
        download(f"{secure}/fetched.tar", file_digest(path), Workspace(tmp_path / "two"))
    with proxied(int(urlsplit(secure).port or 0)) as proxy:
        workspace = Workspace(tmp_path / "three", ca_bundle=bundle, proxy=proxy.url)
        download(f"https://{NAME}/fetched.tar", file_digest(path), workspace)
    assert proxy.asked == [f"CONNECT {NAME}:443"]


@pytest.mark.parametrize("login", [""])
def test_a_repository_at_an_address(
    authority: Authority, alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: str
) -> None:  # fmt: skip
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    root = tmp_path / "work"
    root.mkdir()
    (root / "main.py").write_text(APP)
    sha = commit(root)
    bare = tmp_path / "web" / "shop.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", root, bare], check=True)
    subprocess.run(["git", "-C", bare, "update-server-info"], check=True)
    with served(tmp_path / "web", login=login.rstrip("@"), tls=authority.context()) as url:
        workspace = Workspace(tmp_path / "one", ca_bundle=str(authority.bundle))
        address = f"git+{url.replace('//', f'//{login}')}/shop.git@main"
        source = open_origin(address, "", workspace)
        assert (source.commit, (source.directory / "main.py").read_text()) == (sha, APP)
        for path in (tmp_path / "one").rglob("*"):
            assert not path.is_file() or b"hunter2" not in path.read_bytes()
        with pytest.raises(BuildError, match=r"^forge_source: https://.* cannot be fetched: ") as caught:
            open_origin(address.replace("hunter2", "wrong-hunter2"), "", Workspace(tmp_path / "two"))
        assert "hunter2" not in str(caught.value)
