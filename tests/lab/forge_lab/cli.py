# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from . import inventory, nodes, setup, state
from .machine import HOME, LabError, as_root, say


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="lab", description="Real systemd hosts on this machine, over real SSH.")
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, *, node: bool = False, rest: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        default = None if name in ("list", "clean") else state.default_set()
        about = "one fleet (default: all)" if default is None else "the fleet it belongs to (default: %(default)s)"
        sub.add_argument("--set", dest="set_name", metavar="SET", default=default, help=about)
        if node:
            sub.add_argument("node")
        if rest:
            sub.usage = f"lab {name} [--set SET] NODE [-- CMD…]"
        return sub

    install = commands.add_parser("setup", help="install what this machine lacks for the lab")
    install.add_argument("--vm", action="store_true", help="and for the virtual machine of tests/vm")
    up = command("up", "make, heal or start nodes; without NODE those the set has")
    up.add_argument("specs", nargs="*", metavar="NODE=OS:GROUP[,GROUP…]")
    listing = command("list", "every node, network, image and file of the lab")
    listing.add_argument("--json", action="store_true", help="for programs")
    listing.add_argument("--inventory", action="store_true", help="as an Ansible inventory")
    command("clean", "remove the nodes of a set; without --set everything of the lab")
    command("kill", "cut a node's power", node=True)
    command("start", "start a node and wait until it serves SSH", node=True)
    command("stop", "shut a node down in order", node=True)
    command("restart", "stop and start a node", node=True)
    command("cut", "cut a node off the network, but for SSH from here", node=True)
    command("join", "undo the cut", node=True)
    command("exec", "run a command in a node as root", node=True, rest=True)
    command("ssh", "log in to a node, or run a command over SSH", node=True, rest=True)
    return main


def show(set_name: str | None, as_json: bool) -> None:
    ours = nodes.belongings(set_name)
    found = state.find(set_name)
    others = {kind: names for kind, names in ours.items() if kind != "nodes"}
    known = {node.container for node in found}
    others["half-made"] = [name for name in ours["nodes"] if name not in known]
    if as_json:
        print(json.dumps({"nodes": [node.public() for node in found], **others}, indent=2))
        return
    for node in found:
        now = node.state + ("" if node.complete else ", half-made") + (", cut off" if node.cut_off else "")
        where = f"{node.set:<10} {node.name:<12} {node.os:<11} {node.address:<13}"
        print(f"node      {where} {now:<10} {','.join(node.groups)}")
    for kind, names in others.items():
        for name in names:
            print(f"{kind.removesuffix('s'):<9} {name}")


def one_node(args: argparse.Namespace, command: list[str]) -> None:
    node = state.get(args.set_name, args.node)
    began = time.monotonic()
    if args.command in ("exec", "ssh"):
        if not node.running:
            raise LabError(f"{node.name} is {node.state}; `lab start {node.name}` starts it.")
        if args.command == "ssh":
            enter = state.ssh_command(node, [], command)
        else:
            terminal = ["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
            enter = as_root(["podman", "exec", "--interactive", *terminal, node.container, *(command or ["bash"])])
        os.execvp(enter[0], enter)
    getattr(nodes, args.command)(node)
    now = state.get(args.set_name, args.node)
    say(f"{now.name:<12} {args.command}: {now.state} {now.address}, {time.monotonic() - began:.1f} s")


def run(args: argparse.Namespace, command: list[str]) -> None:
    if args.command == "setup":
        setup.setup(args.vm)
        return
    if args.set_name is not None:
        state.check_set(args.set_name)
    if args.command == "up":
        nodes.up(args.set_name, [nodes.Spec.parse(text) for text in args.specs])
    elif args.command == "list" and args.inventory:
        inventory.show(args.set_name or state.default_set())
    elif args.command == "list":
        show(args.set_name, args.json)
    elif args.command == "clean":
        nodes.clean(args.set_name)
        say(f"nothing left of set {args.set_name}" if args.set_name else f"nothing left, {HOME} is gone")
    else:
        one_node(args, command)


def main() -> int:
    argv = sys.argv[1:]
    end = argv.index("--") if "--" in argv else len(argv)
    args = parser().parse_args(argv[:end])
    command = argv[end + 1 :]  # not left to argparse: before Python 3.13 it drops every -- in it
    try:
        run(args, command)
        sys.stdout.flush()
    except LabError as error:
        say(f"lab: {error}")
        return 1
    except BrokenPipeError:
        # Who reads has seen enough, such as head. What is left is for nobody, also at the end of this process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        say("lab: interrupted; the same command again goes on.")
        return 130
    return 0
