# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd's OnCalendar= as a line of cron, which Kubernetes has. Source: systemd.time(7), crontab(5)."""

from __future__ import annotations

import re

SHORT = {
    "minutely": "* * * * *",
    "hourly": "0 * * * *",
    "daily": "0 0 * * *",
    "weekly": "0 0 * * 1",
    "monthly": "0 0 1 * *",
    "quarterly": "0 0 1 1,4,7,10 *",
    "semiannually": "0 0 1 1,7 *",
    "yearly": "0 0 1 1 *",
    "annually": "0 0 1 1 *",
}
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
ZONE = re.compile(r" (UTC|[A-Za-z]+/[A-Za-z_/+-]+)\Z")
CALENDAR = re.compile(
    r"(?:(?P<days>[A-Za-z][A-Za-z,.]*)(?:,? |\Z))?"
    r"(?:(?:(?P<year>\*|[\d,./]+)-)?(?P<month>\*|[\d,./*]+)-(?P<day>\*|[\d,./*]+)(?: |\Z))?"
    r"(?:(?P<hour>\*|[\d,./*]+):(?P<minute>\*|[\d,./*]+)(?::(?P<second>[\d.]+))?)?\Z"
)


class NoCronError(ValueError):
    """A schedule has no form in cron. The text says why, as a part of a sentence."""


def cron_of(schedule: str) -> tuple[str, str]:
    """Return the line of cron, and the time zone, which is empty for that of the cluster.

    :param schedule: as ``OnCalendar=`` has it.
    :raises NoCronError: when cron cannot say that, or this does not understand it.
    """
    text = " ".join(schedule.split())
    zone = ZONE.search(text)
    if zone:
        text = text[: zone.start()]
    if text.lower() in SHORT:
        return SHORT[text.lower()], zone[1] if zone else ""
    found = CALENDAR.match(text) if text else None
    if not found:
        raise NoCronError("it is not understood")
    if found["year"] not in (None, "*"):
        raise NoCronError("cron knows no years")
    if found["second"] and float(found["second"]):
        raise NoCronError("cron knows no seconds")
    days = days_of(found["days"]) if found["days"] else "*"
    months, month_days = (field(found[name] or "*", *limits) for name, limits in (("month", (1, 12)), ("day", (1, 31))))
    if days != "*" and month_days != "*":
        raise NoCronError("cron takes a day of the week or one of the month")
    hours = field(found["hour"] or "0", 0, 23)
    minutes = field(found["minute"] or "0", 0, 59)
    return f"{minutes} {hours} {month_days} {months} {days}", zone[1] if zone else ""


def days_of(text: str) -> str:
    """Days of the week, by their number."""
    parts = []
    for part in filter(None, text.split(",")):
        ends = [name[:3].lower() for name in part.split("..")]
        if not all(name in DAYS for name in ends) or len(ends) > 2:
            raise NoCronError(f"{part!r} is no day of the week")
        numbers = [DAYS.index(name) for name in ends]
        if len(numbers) == 2 and numbers[1] == 0:
            numbers[1] = 7  # Sunday, as the end of a week
        if numbers != sorted(numbers):
            raise NoCronError(f"{part!r} goes over the end of a week")
        parts.append("-".join(map(str, numbers)))
    return ",".join(parts)


def field(text: str, least: int, most: int) -> str:
    """Hours, minutes, months or days of a month: ``*``, numbers, ranges with two dots, steps."""
    if text == "*":
        return "*"
    parts = []
    for part in text.split(","):
        base, slash, step = part.partition("/")
        ends = [base] if base == "*" else base.split("..")
        numbers = [int(end) for end in ends if end.isdigit()]
        if base != "*" and (len(numbers) != len(ends) or len(ends) > 2 or numbers != sorted(numbers)):
            raise NoCronError(f"{part!r} is not understood")
        no_step = bool(slash) and not (step.isdigit() and int(step))
        if no_step or any(not least <= each <= most for each in numbers):
            raise NoCronError(f"{part!r} is not understood")
        span = "-".join(map(str, numbers)) or "*"
        if slash and len(numbers) == 1:  # from there on
            span = "*" if numbers[0] == least else f"{numbers[0]}-{most}"
        parts.append(f"{span}/{int(step)}" if slash else span)
    return ",".join(parts)
