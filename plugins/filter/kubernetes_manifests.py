# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

from ..module_utils._private.environment import read_environment
from ..plugin_utils._private.kubernetes import App, ManifestError

DOCUMENTATION = r"""
name: kubernetes_manifests
short_description: Manifests of an app for Kubernetes
version_added: 1.1.0
author: The Code Forge (@thecodeforge)
description:
  - Three files, to be applied one after the other - settings, migrations, and the app with all around it.
  - Pods are as the standard C(restricted) of Kubernetes wants them. Settings have their hash in their names, so a rollback of the
    Deployment brings them back.
options:
  _input:
    description: Name of the app.
    type: str
    required: true
  environment:
    description: Text of the environment file.
    type: str
    required: true
  directory:
    description: Where the files are to lie.
    type: str
    required: true
  files:
    description: Settings files, as C(forge_files).
    type: list
    elements: dict
    default: []
  options:
    description: What else is known of the app, by the names of C(App) in plugin_utils/_private/kubernetes.py.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the manifests
  ansible.builtin.debug:
    msg: "{{ 'shop' | thecodeforge.fastapi.kubernetes_manifests(environment='', directory='kubernetes', options=options) }}"
  vars:
    options: {namespace: shop, image: "registry.example.org/shop:0123456789ab", release: "0123456789ab", target: "shop.main:app"}
"""

RETURN = r"""
_value:
  description: >-
    C(problem), what has no form in Kubernetes, in a sentence, and else empty; C(settings), a file that its owner alone may read,
    C(migrate), empty when there is nothing to migrate, and C(app), each with C(path) and C(content); C(job), the name of the job that
    migrates; C(commands) that apply them.
  type: dict
"""

FILES = {"settings": "1-settings.yml", "migrate": "2-migrate.yml", "app": "3-app.yml"}
HEAD = "# Made by thecodeforge.fastapi for app {app}, release {release}: changes by hand are replaced.\n"


class Dumper(yaml.SafeDumper):
    """Writes the same list twice in full, and texts of several lines as people do."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Dumper.add_representer(str, write_text)


def kubernetes_manifests(
    app: str, environment: str, options: dict[str, Any], directory: str, files: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    settings_files = [{key: str(value) for key, value in each.items()} for each in files or []]
    try:
        # As JSON, and so without Ansible's own types, which YAML does not write.
        made = json.loads(
            json.dumps(
                App(name=app, settings=read_environment(environment), files=settings_files, **options).manifests()
            )
        )
    except ManifestError as error:
        return {"problem": f"{error} Nothing was written."}
    head = HEAD.format(app=app, release=options["release"])
    paths = {part: f"{directory}/{name}" for part, name in FILES.items() if made[part]}
    texts = {
        part: head
        + "".join("---\n" + yaml.dump(each, Dumper=Dumper, sort_keys=False, width=120) for each in made[part])
        for part in paths
    }
    return {
        "problem": "",
        **{part: {"path": paths[part], "content": texts[part]} if part in paths else {} for part in FILES},
        "job": made["migrate"][0]["metadata"]["name"] if made["migrate"] else "",
        "commands": list(commands(paths, made, options["namespace"])),
    }


def commands(paths: dict[str, str], made: dict[str, list[Any]], namespace: str) -> Iterator[str]:
    """Yield what applies the files one after the other, each when the one before has done its work."""
    of = f"kubectl --namespace {namespace}"
    for part, path in paths.items():
        yield f"{of} apply --filename {path}"
        first = made[part][0]
        if part == "migrate":
            seconds = first["spec"]["activeDeadlineSeconds"]
            yield f"{of} wait --for condition=complete --timeout {seconds}s job/{first['metadata']['name']}"
        elif part == "app":
            yield f"{of} rollout status deployment/{first['metadata']['name']}"


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"kubernetes_manifests": kubernetes_manifests}
