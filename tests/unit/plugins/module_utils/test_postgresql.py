# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of a host's PostgreSQL where no server is needed for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private import postgresql
from ansible_collections.thecodeforge.fastapi.plugins.module_utils._private.environment import write_environment


@pytest.mark.parametrize(
    ("url", "earlier"),
    [
        ("postgresql://forge:s3cret@192.0.2.9:5432/forge", True),
        ("postgresql+asyncpg://forge:s3cret@192.0.2.9:5432/forge?ssl=require", True),
        ("postgresql://forge:s3cret@192.0.2.9:5432/shop", False),
        ("postgresql://shop:s3cret@192.0.2.9:5432/forge", False),
        ("postgresql://forge:s3[cret@192.0.2.9:5432/forge", False),
        ("mysql://forge:s3cret@192.0.2.9/forge", False),
    ],
)
def test_that_what_serves_uses_names_of_an_earlier_version(tmp_path: Path, url: str, earlier: bool) -> None:
    environment = tmp_path / "environment"
    assert not postgresql.uses_earlier_names(str(tmp_path))
    environment.write_text(write_environment({"KEY": "x", "DATABASE_URL": url}, "SHOP_"))
    assert postgresql.uses_earlier_names(str(tmp_path)) is earlier


def test_files_and_rules_of_ours_are_known_by_their_mark(tmp_path: Path) -> None:
    ours = "# Managed by thecodeforge.fastapi for app shop: changes by hand are replaced.\n"
    for name, text in {
        "shop.conf": ours,
        "old.conf": f"# {postgresql.EARLIER}: …\n",
        "zz.conf": "a = 1\n",
        "x": ours,
    }.items():
        (tmp_path / name).write_text(text)
    assert sorted(postgresql.own_files(str(tmp_path))) == [str(tmp_path / "old.conf"), str(tmp_path / "shop.conf")]
    assert postgresql.own_files(str(tmp_path / "none")) == {}
    (tmp_path / "pg_hba.conf").write_bytes(
        b"# caf\xe9\nhost a a 192.0.2.1/32 md5\n# BEGIN Managed by thecodeforge.fastapi for app shop-2\nhost 2\n"
        b"# END Managed by thecodeforge.fastapi for app shop-2\n# BEGIN Managed by thecodeforge.fastapi for app shop\n"
        b"host 1\nhost 3\n# END Managed by thecodeforge.fastapi for app shop\n"
    )
    assert postgresql.block_of("shop", str(tmp_path / "pg_hba.conf")) == ("host 1\nhost 3\n", False)
    assert postgresql.block_of("shop-2", str(tmp_path / "pg_hba.conf")) == ("host 2\n", False)
    assert postgresql.block_of("api", str(tmp_path / "pg_hba.conf")) == ("", False)
    (tmp_path / "pg_hba.conf").write_text("# café\n")
    assert postgresql.block_of("api", str(tmp_path / "pg_hba.conf")) == ("", True)


def test_the_cluster_is_that_of_the_port_or_the_only_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = ["16 main 5432 down postgres /d /l", "15 main 5433 down postgres /d /l"]
    monkeypatch.setattr(postgresql.shutil, "which", lambda _name: "/usr/bin/pg_lsclusters")

    def run(argv: list[str], **_options: Any) -> Any:
        return SimpleNamespace(returncode=0, stdout="\n".join(lines) if argv[0] == "pg_lsclusters" else "installed")

    monkeypatch.setattr(postgresql, "run", run)
    monkeypatch.setattr(postgresql, "missing_packages", lambda _names: [])
    assert postgresql.look(5433, "shop")["cluster"] == "15/main"
    assert "cluster" not in postgresql.look(5434, "shop")
    (tmp_path / "postmaster.pid").touch()
    lines.insert(0, "15 drill 5433 down postgres /none /l")  # that is just being restored from a backup of the other
    lines[2] = f"15 main 5433 down postgres {tmp_path} /l"
    assert postgresql.look(5433, "shop")["cluster"] == "15/main"
    del lines[:2]
    found = postgresql.look(5434, "shop")
    assert (found["cluster"], found["port"], found["running"]) == ("15/main", 5433, False)
    del lines[0]
    assert postgresql.look(5432, "shop") == {"clusters": [], "missing_packages": []}
