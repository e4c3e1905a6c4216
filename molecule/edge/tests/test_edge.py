# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user finds on an edge after site.yml: asked over SSH, without the collection's own code."""

from __future__ import annotations

import pytest

CONFIG = "/etc/haproxy/haproxy.cfg"
ASK = "curl -sS --noproxy '*' --max-time 10 --connect-to ::127.0.0.1"


@pytest.fixture
def root(host):
    """The host, as root."""
    with host.sudo():
        yield host


def status(root, url, *options):
    return root.check_output(f"{ASK} -k -o /dev/null -w '%{{http_code}}' {' '.join(options)} {url}")


def test_haproxy_runs_as_the_distribution_has_it(root):
    assert root.service("haproxy").is_running
    assert root.service("haproxy").is_enabled
    assert root.file(CONFIG).content_string.startswith("# Managed by thecodeforge.fastapi")
    assert root.run(f"haproxy -c -q -f {CONFIG}").rc == 0


def test_no_other_app_reads_the_key(root):
    for name in root.check_output("find /etc/haproxy/forge/certificates -name '*.pem'").split():
        assert (root.file(name).mode, root.file(name).user) == (0o600, "root")


def test_names_are_served_and_others_are_not(root):
    for name in "shop.example.org", "a.shop.example.org":
        assert status(root, f"https://{name}/healthz") == "200"
    assert status(root, "https://example.org/healthz") == "421"


def test_plain_http_is_sent_to_tls(root):
    head = root.check_output(f"{ASK} -o /dev/null -D - http://shop.example.org/parts?a=b")
    assert "308" in head.splitlines()[0]
    assert "location: https://shop.example.org/parts?a=b" in head


def test_browsers_are_asked_for_tls_alone(root):
    assert "strict-transport-security: max-age=31536000" in root.check_output(
        f"{ASK} -k -o /dev/null -D - https://shop.example.org/healthz"
    )


def test_body_that_is_too_large_is_refused(root):
    """Over HTTP/2 HAProxy 2.6 resets the stream right after the answer, which curl 7.88 takes for an error."""
    root.check_output("truncate -s 2M /tmp/body")
    assert status(root, "https://shop.example.org/parts", "--http1.1 --data-binary @/tmp/body") == "413"


def test_statistics_are_private(root):
    assert "haproxy_server_status" in root.check_output(f"{ASK} http://127.0.0.1:8404/metrics")
    assert root.socket("tcp://127.0.0.1:8404").is_listening
    assert not root.socket("tcp://0.0.0.0:8404").is_listening


def test_log_names_host_server_and_generation(root):
    mark = root.check_output("cat /proc/sys/kernel/random/uuid")
    assert status(root, f"https://shop.example.org/healthz?mark={mark}") == "200"
    root.check_output(f"timeout 10 sh -c 'until journalctl -u haproxy | grep -q {mark}; do sleep 0.2; done'")
    line = root.check_output(f"journalctl -u haproxy -o cat | grep {mark}")
    assert "host=shop.example.org generation=" in line
    assert "forge/app13" in line


def test_nothing_failed(root):
    assert root.check_output("systemctl list-units --failed --plain --no-legend") == ""
