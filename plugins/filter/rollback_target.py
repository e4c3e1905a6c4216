# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

DOCUMENTATION = r"""
name: rollback_target
short_description: Which generation a rollback goes to, or why it goes nowhere
version_added: 1.0.0
author: The Code Forge (@thecodeforge)
description:
  - Without a name, the good generation that served before the live one. With one, that generation, or the good
    generation of that release. Never one that is half-made or bad.
  - The database is ahead of a generation when its schema has another version than the one it was migrated to. Where a rehearsal has tried
    the release that served before with the migrated database, that answers whether it works all the same.
options:
  _input:
    description: What M(thecodeforge.fastapi.status) says of the host.
    type: dict
    required: true
  to:
    description: Id of a generation or of a release; empty for the last good one.
    type: str
    default: ""
  schema:
    description: Version of the database's schema now; empty when nothing says it.
    type: str
    default: ""
  compatible:
    description: Go back although the database is ahead.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Choose
  ansible.builtin.debug:
    msg: "{{ status | thecodeforge.fastapi.rollback_target }}"
"""

RETURN = r"""
_value:
  description: C(generation), or a C(problem) in one sentence.
  type: dict
"""


def rollback_target(status: dict[str, Any], to: str = "", schema: str = "", compatible: bool = False) -> dict[str, str]:
    generations: dict[str, dict[str, Any]] = status["generations"]
    if not status["live"]:
        return refuse("nothing was ever released here")
    if to:
        found = [name for name in generations if name == to or name.startswith(f"{to}-")]
        usable = [name for name in found if name in status["served"]]
        if not found:
            kept = ", ".join(sorted(status["served"]))
            return refuse(f"there is no generation or release {to} here; kept are {kept or 'none'}")
        if not usable:
            record = generations[found[0]]
            reason = f" ({record['reason']})" if record.get("reason") else ""
            return refuse(f"{found[0]} has never served: it is {record.get('state')}{reason}")
        target = status["live"] if status["live"] in usable else min(usable, key=status["served"].index)
    else:
        target = status["previous"]
        if not target:
            return refuse("there is no earlier good generation to go back to")
    record = generations.get(target, {})
    rehearsed = rehearsal_of(generations.get(status["live"], {}), record)
    if rehearsed.get("state") == "does not work" and not compatible:
        return refuse(
            f"the rehearsal of the migrations that followed it has shown that {target} does not work with the database as it is: "
            f"{str(rehearsed['reason']).rstrip('.')}. To go back all the same, run again with -e forge_schema_compatible=true"
        )
    had = record.get("schema", "")
    if schema and schema != had and not compatible and rehearsed.get("state") != "works":
        was = f"was migrated to {had}" if had else "was released without saying its schema"
        return refuse(
            f"the database is at schema {schema}, but {target} {was}. A rollback does not change the database: if the "
            "code works with it, run again with -e forge_schema_compatible=true"
        )
    return {"generation": target, "problem": ""}


def rehearsal_of(live: dict[str, Any], target: dict[str, Any]) -> dict[str, Any]:
    """What the rehearsal before the live generation's migrations has found out of a generation; empty when it was of another one."""
    found: dict[str, Any] = live.get("way_back") or {}
    return found if found.get("release") and found["release"] == target.get("release") else {}


def refuse(why: str) -> dict[str, str]:
    return {"generation": "", "problem": f"{why}. Nothing was changed."}


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"rollback_target": rollback_target}
