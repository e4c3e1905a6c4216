# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd's schedules as lines of cron."""

from __future__ import annotations

import re

import pytest
from ansible_collections.thecodeforge.fastapi.plugins.plugin_utils._private.cron import NoCronError, cron_of
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("schedule", "cron", "zone"),
    [
        ("daily", "0 0 * * *", ""),
        ("Weekly", "0 0 * * 1", ""),
        ("03:30", "30 3 * * *", ""),
        ("*-*-* 03:30:00", "30 3 * * *", ""),
        ("*-*-* 4:00", "0 4 * * *", ""),
        ("*:0/15", "*/15 * * * *", ""),
        ("*:5/20", "5-59/20 * * * *", ""),
        ("*:*", "* * * * *", ""),
        ("8..18:00", "0 8-18 * * *", ""),
        ("Mon..Fri 8:00,30", "0,30 8 * * 1-5", ""),
        ("Sat,Sun 10:00 Europe/Berlin", "0 10 * * 6,0", "Europe/Berlin"),
        ("Fri..Sun 1:00", "0 1 * * 5-7", ""),
        ("Monday", "0 0 * * 1", ""),
        ("*-*-01 00:00 UTC", "0 0 1 * *", "UTC"),
        ("*-1,7-1", "0 0 1 1,7 *", ""),
        ("1..3-15 6:00", "0 6 15 1-3 *", ""),
    ],
)
def test_schedules_that_cron_can_say(schedule: str, cron: str, zone: str) -> None:
    assert cron_of(schedule) == (cron, zone)


@pytest.mark.parametrize(
    ("schedule", "why"),
    [
        ("2027-01-01 00:00", "cron knows no years"),
        ("*:*:30", "cron knows no seconds"),
        ("Mon *-*-1 0:00", "a day of the week or one of the month"),
        ("Sat..Mon 0:00", "goes over the end of a week"),
        ("Foo 0:00", "is no day of the week"),
        ("25:00", "is not understood"),
        ("*-*~1 0:00", "it is not understood"),
        ("*:0/0", "is not understood"),
        ("", "it is not understood"),
    ],
)
def test_schedules_that_it_cannot(schedule: str, why: str) -> None:
    with pytest.raises(NoCronError, match=why):
        cron_of(schedule)


@given(st.text(alphabet="*0123456789:-/,. MonTueSatUTC", max_size=24))
def test_whatever_is_written_is_cron_or_refused(schedule: str) -> None:
    try:
        line, _zone = cron_of(schedule)
    except NoCronError:
        return
    assert re.fullmatch(r"(\S+ ){4}\S+", line)
    assert not re.search(r"[^\d*/,\- ]", line)
