# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a command as systemd would: with sockets from descriptor 3 on, and LISTEN_PID its own pid."""

import os
import sys

fds = [int(fd) for fd in sys.argv[1].split(",")]
copies = [os.dup(fd) for fd in fds]  # first away from where they are to be
for target, fd in enumerate([os.dup2(fd, 100 + index) for index, fd in enumerate(copies)], start=3):
    os.dup2(fd, target)  # inheritable
os.closerange(3 + len(fds), 200)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)))
os.execv(sys.argv[2], sys.argv[2:])
