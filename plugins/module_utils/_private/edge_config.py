# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of HAProxy, made from a part for each app that an edge has. What a part holds is made by roles/edge."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from .listening import V4, V6, Endpoint, endpoint, overlap
from .records import Document

HOME = "/etc/haproxy/forge"
CONFIG = "/etc/haproxy/haproxy.cfg"
MARK = "# Managed by thecodeforge.fastapi, for all apps of this edge: changes by hand are replaced"
ADMIN_SOCKET = "/run/haproxy/admin.sock"
# Mozilla's "intermediate", without the suites that need parameters for Diffie-Hellman: https://ssl-config.mozilla.org
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
CURVES = "X25519:prime256v1:secp384r1"
SUITES = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
LOG_FORMAT = (
    "%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %tsc %ac/%fc/%bc/%sc/%rc %sq/%bq "
    "host=%[var(txn.host)] generation=%[var(txn.generation)] %{+Q}r"
)


@dataclass(frozen=True)
class Part(Document):
    """What one app wants of an edge: ``apps/<app>.json``.

    ``backend`` is text of HAProxy's: the sections ``backend <app>`` and ``backend <app>.writes``, and what they need.
    """

    app: str = ""
    names: list[str] = field(default_factory=list)  # hosts of URLs, in lower case; none is every other one
    http: list[str] = field(default_factory=list)  # addresses, as in forge_listen
    https: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    tls: bool = False
    challenges: list[str] = field(default_factory=list)  # where the answers to an ACME server are, address:port
    longest: int = 0  # seconds that a connection may last after a reload
    backend: str = ""
    project: dict[str, Any] = field(default_factory=dict)
    # Names of servers that get nothing, as they lack a release that the others have.
    held: list[str] = field(default_factory=list)

    def sections(self) -> str:
        """Text of the backends. What tracks a server that is disabled gets nothing either."""
        names = "|".join(map(re.escape, self.held))
        return (
            re.sub(rf"^( +server (?:{names}) \S+)$", r"\1 disabled", self.backend, flags=re.MULTILINE)
            if names
            else self.backend
        )

    def servers(self) -> list[str]:
        return list(dict.fromkeys(re.findall(r"^ +server (\S+) ", self.backend, re.MULTILINE)))

    def addresses(self) -> list[tuple[str, str]]:
        """Variable and address of each that is listened on."""
        found = [("forge_edge_http", each) for each in self.http]
        found += [("forge_edge_https", each) for each in self.https if self.tls]
        return found + [("forge_edge_metrics", each) for each in self.metrics]


def part_file(app: str) -> str:
    return f"{HOME}/apps/{app}.json"


def certificate_file(app: str) -> str:
    return f"{HOME}/certificates/{app}.pem"


def maintenance_file() -> str:
    """Names of the apps that are in a maintenance, one a line; HAProxy is told of a change, and does not read it again."""
    return f"{HOME}/maintenance.list"


def shared_files(parts: Sequence[Part]) -> dict[str, str]:
    """Path to text of each file that all apps of an edge share."""
    exact = [(name, part.app) for part in parts for name in part.names if not name.startswith("*.")]
    below = [(name[1:], part.app) for part in parts for name in part.names if name.startswith("*.")]
    return {
        CONFIG: main_file(parts),
        f"{HOME}/hosts.map": map_text(exact),
        f"{HOME}/domains.map": map_text(below),
        f"{HOME}/certificates.list": "".join(f"{certificate_file(part.app)}\n" for part in parts if part.tls),
    }


def map_text(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{key} {value}\n" for key, value in sorted(pairs))


def main_file(parts: Sequence[Part]) -> str:
    """Text of haproxy.cfg."""
    others = next((part.app for part in parts if not part.names), "forge_nobody")
    sections = [head(parts), frontend("forge_http", binds(part.http for part in parts), others, parts)]
    https = binds(part.https for part in parts if part.tls)
    if https:
        options = f" ssl crt-list {HOME}/certificates.list alpn h2,http/1.1"
        sections.append(frontend("forge_https", [each + options for each in https], others, parts))
    private = binds(part.metrics for part in parts)
    if private:
        sections.append(
            "frontend forge_private from forge\n"
            + "".join(f"    bind {each}\n" for each in private)
            + "    option dontlog-normal\n"
            "    http-request use-service prometheus-exporter if { path /metrics }\n"
            "    stats enable\n    stats uri /\n    stats refresh 10s\n"
        )
    challenges = sorted({each for part in parts for each in part.challenges})
    if challenges:
        # Each edge has certificates of its own. Who has not asked for one answers 404, or not at all.
        servers = "".join(f"    server challenge{number} {each}\n" for number, each in enumerate(challenges))
        sections.append(
            "backend forge_challenges from forge\n    balance first\n    retry-on conn-failure empty-response 404\n"
            f"    retries {2 * len(challenges)}\n    option redispatch 1\n    timeout connect 2s\n{servers}"
        )
    sections.append("backend forge_nobody from forge\n    http-request return status 421 hdr cache-control no-store\n")
    return "\n".join([*sections, *(part.sections() for part in parts)])


def head(parts: Sequence[Part]) -> str:
    longest = max([60, *(part.longest for part in parts)])
    return f"""\
{MARK}
global
    log /dev/log local0
    chroot /var/lib/haproxy
    stats socket {ADMIN_SOCKET} mode 660 level admin expose-fd listeners
    stats timeout 30s
    user haproxy
    group haproxy
    fd-hard-limit 60000
    # What a reload has left to finish is cut then.
    hard-stop-after {longest}s
    ssl-default-bind-ciphers {CIPHERS}
    ssl-default-bind-ciphersuites {SUITES}
    ssl-default-bind-curves {CURVES}
    ssl-default-bind-options prefer-client-ciphers ssl-min-ver TLSv1.2 no-tls-tickets

defaults forge
    mode http
    log global
    option dontlognull
    # Idle clients of a process that a reload ends are told so with their next answer.
    option idle-close-on-response
    timeout http-request 10s
    timeout http-keep-alive 60s
    timeout client 60s
    timeout client-fin 10s
    timeout queue 10s
    timeout connect 3s
    timeout server 60s
    timeout tunnel 1h
    log-format "{LOG_FORMAT}"
"""


def frontend(name: str, addresses: Sequence[str], others: str, parts: Sequence[Part]) -> str:
    """A section that all apps share: which app a request is for, and what it is told of its client."""
    scheme = "https" if name == "forge_https" else "http"
    rules = [
        *(f"bind {each}" for each in addresses),
        "http-request set-var(txn.host) req.hdr(host),field(1,:),lower",
        f"http-request set-var(txn.app) var(txn.host),map_str({HOME}/hosts.map)",
        f"http-request set-var(txn.app) var(txn.host),map_end({HOME}/domains.map) unless {{ var(txn.app) -m found }}",
        f"http-request set-var(txn.app) str({others}) unless {{ var(txn.app) -m found }}",
        # What a client says of itself is no word of ours.
        "http-request del-header forwarded",
        "http-request set-header x-forwarded-for %[src]",
        f"http-request set-header x-forwarded-proto {scheme}",
        "http-request set-header x-forwarded-host %[req.hdr(host)]",
        "http-response set-var(txn.generation) res.hdr(x-forge-generation)",
        "http-response del-header x-forge-generation",
    ]
    if any(part.challenges for part in parts):
        rules.append("use_backend forge_challenges if { path_beg /.well-known/acme-challenge/ }")
    rules += [
        "use_backend forge_nobody if { var(txn.app) -m str forge_nobody }",
        "use_backend %[var(txn.app)] if METH_GET or METH_HEAD or METH_OPTIONS",
        "use_backend %[var(txn.app)].writes",
        "default_backend forge_nobody",
    ]
    return f"frontend {name} from forge\n" + "".join(f"    {rule}\n" for rule in rules)


def binds(lists: Iterable[Sequence[str]]) -> list[str]:
    """Addresses of several apps as HAProxy writes them, each once."""
    found = sorted({endpoint(each) for addresses in lists for each in addresses})
    return [as_bind(each, found) for each in found]


def as_bind(address: Endpoint, beside: Sequence[Endpoint]) -> str:
    if address.host == V6 and (V4, address.port) not in beside:
        return f"[::]:{address.port} v4v6"
    return f"[{address.host}]:{address.port} v6only" if ":" in address.host else f"{address.host}:{address.port}"


def own_files(part: Part, text: str, pages: dict[str, str]) -> dict[str, str]:
    """Path to text of each file of one app, but for its certificate.

    :param text: of the part, as JSON.
    :param pages: name to text, ``unavailable.http`` and ``maintenance.html``.
    """
    return {part_file(part.app): text, **{f"{HOME}/pages/{part.app}.{name}": page for name, page in pages.items()}}


def problems(wanted: Part, others: Sequence[Part], host: str) -> list[str]:
    """Why an app cannot be beside the others of an edge, a sentence each; none when it can."""
    found = []
    for other in others:
        both = sorted(set(wanted.names) & set(other.names))
        if both:
            found.append(
                f"forge_edge_names: {both[0]} is served by the app {other.app} on {host}: leave it out here, or take it from that app."
            )
        elif not wanted.names and not other.names:
            found.append(
                f"forge_edge_names is empty, and on {host} the app {other.app} already has all names that no app names: name this "
                "app's."
            )
    entries = [(name, address, part.app) for part in (wanted, *others) for name, address in part.addresses()]
    for (name, address, app), (other_name, other_address, other_app) in combinations(entries, 2):
        one, two = endpoint(address), endpoint(other_address)
        same_use = name == other_name and one == two
        if overlap(one, two) and not same_use and not (app == other_app and app != wanted.app):
            whose = "" if app == other_app else f" of the app {other_app}"
            found.append(
                f"{name}: {address} and {other_address} ({other_name}{whose}) overlap on {host}: choose another one."
            )
    return list(dict.fromkeys(found))
