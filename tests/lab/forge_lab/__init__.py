"""The local lab: podman containers that boot systemd, made from the distribution's own packages.

Everything it makes carries one prefix, `forge-lab-`, or lies in one directory, `build/lab`.
"""
