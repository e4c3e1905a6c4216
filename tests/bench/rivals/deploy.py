# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same as site.yml, for pyinfra. Data comes from the inventory."""

from pyinfra import config, host
from pyinfra.operations import apt, files, server, systemd
from pyinfra.operations.util import any_changed

config.SUDO = True

name, port = host.data.service, host.data.listen_port
home = f"/srv/{name}"
data = {key: host.data.get(key) for key in ("service", "listen_port", "workers", "greeting")}

apt.packages(packages=["python3-venv"], update=True, cache_time=86400)
server.group(group=name, system=True)
server.user(user=name, group=name, system=True, shell="/usr/sbin/nologin", home="/nonexistent", create_home=False)
files.directory(path=f"{home}/code", mode="755")
dependencies = files.put(src=host.data.requirements, dest=f"{home}/requirements.txt", mode="644")
installed = server.shell(
    commands=[
        f"test -x {home}/venv/bin/pip || python3 -m venv {home}/venv",
        f"PIP_CERT=/etc/ssl/certs/ca-certificates.crt {home}/venv/bin/pip install -q -r {home}/requirements.txt",
    ],
    _if=dependencies.did_change,
)
code = files.put(src=host.data.code, dest=f"{home}/code.tar.gz", mode="644")
server.shell(commands=[f"tar -xzf {home}/code.tar.gz -C {home}/code"], _if=code.did_change)
environment = files.template(src="templates/environment.j2", dest=f"{home}/environment", group=name, mode="640", **data)
gunicorn = files.template(src="templates/gunicorn.conf.py.j2", dest=f"{home}/gunicorn.conf.py", mode="644", **data)
unit = files.template(src="templates/app.service.j2", dest=f"/etc/systemd/system/{name}.service", mode="644", **data)
server.shell(commands=[f"{home}/venv/bin/python -c pass"], _if=code.did_change, _run_once=True)
changed = any_changed(dependencies, code, environment, gunicorn, unit)
systemd.service(service=name, running=True, restarted=True, enabled=True, daemon_reload=True, _if=changed)
systemd.service(service=name, running=True, enabled=True)
server.shell(
    commands=[f"for _ in $(seq 120); do curl -sf http://127.0.0.1:{port}/healthz && exit; sleep 0.25; done; exit 1"],
    _if=changed,
)
