# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The local lab: podman containers that boot systemd, made from the distribution's own packages.

Everything it makes carries one prefix, `forge-lab-`, or lies in one directory, `build/lab`.
"""
