# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users download: no link of its pages is dead, and nothing in it asks for what only the repository has."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]:\s+(\S+)", re.MULTILINE)
FOR_DEVELOPERS = [
    "tests",
    "tools",
    "app",
    "molecule",
    "inventories/lab",
    "Makefile",
    "CONTRIBUTING.md",
    "changelogs/fragments",
]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked collection."""
    folder = tmp_path_factory.mktemp("artifact")
    subprocess.run([REPOSITORY / "tools" / "artifact", folder], check=True, capture_output=True)
    return folder / "collections" / "ansible_collections" / "thecodeforge" / "fastapi"


def links(text: str) -> list[str]:
    return [inline or reference for inline, reference in LINK.findall(text)]


def anchor(heading: str) -> str:
    """A heading's fragment, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def dead_links(root: Path, pages: list[Path]) -> list[str]:
    """Relative links of Markdown pages whose file or heading is not there, with the page's path below root."""
    dead = []
    for page in sorted(pages):
        for link in links(page.read_text(encoding="utf-8")):
            if "://" in link or link.startswith("mailto:"):
                continue
            name, _, fragment = link.partition("#")
            target = page.parent / name if name else page
            if not target.exists():
                dead.append(f"{page.relative_to(root)}: {link}")
            elif fragment:
                headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
                if fragment not in map(anchor, headings):
                    dead.append(f"{page.relative_to(root)}: {link}")
    return dead


def test_no_link_is_dead(artifact: Path) -> None:
    pages = list(artifact.rglob("*.md"))
    assert len(pages) > 10
    assert dead_links(artifact, pages) == []


def test_a_dead_link_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("# A heading\n[a](#a-heading) [b](gone.md) [c](page.md#gone)\n[d]: away.md\n")
    assert dead_links(tmp_path, [tmp_path / "page.md"]) == [
        "page.md: gone.md",
        "page.md: page.md#gone",
        "page.md: away.md",
    ]


def test_no_page_asks_for_a_makefile(artifact: Path) -> None:
    assert not (artifact / "Makefile").exists()
    asking = [
        page.name
        for page in artifact.rglob("*.md")
        if re.search(r"^\$ make |`make [a-z]", page.read_text(), re.MULTILINE)
    ]
    assert asking == []


def test_what_developers_need_is_not_shipped(artifact: Path) -> None:
    assert [name for name in FOR_DEVELOPERS if (artifact / name).exists()] == []


def test_what_users_need_is_shipped(artifact: Path) -> None:
    needed = [
        "README.md",
        "SECURITY.md",
        "LICENSE",
        "CHANGELOG.rst",
        "inventories/example/hosts.yml",
        "docs/messages.md",
    ]
    assert [name for name in needed if not (artifact / name).exists()] == []


def test_no_link_of_the_repository_is_dead() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    assert dead_links(REPOSITORY, [REPOSITORY / name for name in tracked.split()]) == []
