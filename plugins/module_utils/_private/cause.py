# Copyright: The Code Forge. GNU General Public License v3.0+, see LICENSE
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first cause of a failure, found in what a program has printed, and what to do about the certain ones.

Texts come in with their secrets masked.
"""

from __future__ import annotations

import re

LONGEST = 400  # characters of a cause: a message may hold a whole statement
SHOWN = 80  # lines of output that are shown, from the cause on
TAIL = 30  # lines that are shown where no cause is found

HEADER = "Traceback (most recent call last):"
# What Python prints between two tracebacks of a chain.
CHAINED = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
# "package.SomeError: message", "KeyboardInterrupt"; not "INFO: message".
EXCEPTION = re.compile(r"(?!(?:DEBUG|INFO|WARNING|ERROR|CRITICAL|FATAL|NOTICE|TRACE)\b)[A-Za-z_][\w.]*(?::( .*|$)|$)")
GROUP = re.compile(r"[\w.]*ExceptionGroup: ")
NAMED_ERROR = re.compile(r"[\w.]*[A-Z]\w*(Error|Exception)(: .*|$)")
CONTINUES = re.compile(r":$|\bvalidation errors? for \S+$")
MARGIN = re.compile(r"^\s*(?:[|+]\s?)+(?:-+[ \d.]*-+\s*)?")  # that Python puts before the lines of an exception group
MARKS = ("|", "+")
# Time, process and level, as Gunicorn, Uvicorn, logging and systemd write them.
LOG_HEAD = re.compile(
    r"^(?:\[?\d{4}-\d\d-\d\d[T ][\d:.,]+(?: ?[+-]\d{4}|Z)?\]?\s*)?(?:\[\d+\]\s*)?"
    r"(?:\[?(?:DEBUG|INFO|WARNING|ERROR|CRITICAL|FATAL)\b\]?:?\s*)?"
)
AN_ERROR = re.compile(
    r"\b(?:error|errors|fatal|failed|failure|critical|exception|cannot|can't|could not|unable|refused|denied"
    r"|not found|no module named|no such file|not permitted|killed|invalid)\b",
    re.IGNORECASE,
)
CHATTER = re.compile(r"^(?:Started|Starting|Stopp)|: Scheduled|: Deactivated|\b(?:DEBUG|INFO|WARNING)\b")
HARMLESS = re.compile(r"^(?:\S+\s+)?\[?(?:DEBUG|INFO|WARNING)\b|\b(?:0|no) (?:errors|failures|failed)\b", re.IGNORECASE)
# True, but only the consequence of something else: what Gunicorn, Uvicorn and systemd say when an app has failed.
CONSEQUENCE = re.compile(
    r"Application (?:startup|shutdown) failed|Worker failed to boot|Worker \(pid:|Exception in worker process"
    r"|Shutting down|Main process exited|Failed with result|Scheduled restart|Reason: Worker|Exception in ASGI"
    r"|Control process exited|Failed to start|Job for .* failed|See \"?systemctl status|See \"?journalctl"
)

# What compilers and build backends begin their error with, and what of their output is no word about it.
TOOL_ERROR = re.compile(
    r"(^|[\s:])(fatal )?error: |^(fatal|error)\b|not installed|not found|No such file", re.IGNORECASE
)
TOOL_NOISE = re.compile(r"^(Building (wheel|source distribution)\b.*|\s*\^+\s*|hint: .*)$")

HINTS = (
    (
        r"too many clients already|remaining connection slots|[Tt]oo many connections|too many connections for",
        "Its workers open more connections than the database gives: tell forge_worker_connections what each may open, so "
        "that forge_workers fits, or raise forge_postgresql_max_connections.",
    ),
    (
        r"\[Errno 98\]",
        "Each worker, and during a release two generations, run side by side: a port that the app itself opens is taken "
        "by then.",
    ),
    (
        r"Read-only file system|PermissionError: \[Errno 13\]",
        "The service writes only to its own /tmp and to what forge_state_directories, forge_cache_directories and "
        "forge_writable_paths name, and forge_release_commands to forge_release_paths.",
    ),
    (
        r"Operation not permitted|PermissionError: \[Errno 1\]",
        "The service may not do what only root needs, such as to give files to other groups: forge_sandbox says what else it may.",
    ),
    (r"ModuleNotFoundError: No module named", "Is it among the app's dependencies, and its code in forge_source?"),
    (
        r"\bMemoryError\b|out of memory|oom-kill|was sent SIGKILL",
        "Memory may have run out: see forge_workers, forge_worker_memory_mb and forge_memory_max_mb.",
    ),
)


def first_cause(lines: list[str]) -> tuple[int, str]:
    """The first cause in what a program has printed.

    It is the last line of the first traceback, with those that it is chained to; else the first line with an error.

    :returns: index of the line where it begins, from which on the output is worth reading, and the cause, which is one
        line without an end mark; empty when nothing was printed.
    """
    for index, line in enumerate(lines):
        if HEADER in line:
            cause = end_of_chain(lines, index)
            if cause:
                return index, cause
    for likely in (is_named_error, is_error, is_consequence, has_text):
        found = [index for index, line in enumerate(lines) if likely(line)]
        if found:
            index = found[-1] if likely is has_text else found[0]
            if likely is is_consequence and index and is_last_word(lines[index - 1]):
                index -= 1
            return index, shortened(with_continuation(lines, index, without_log_head(lines[index])))
    return len(lines), ""


def tool_cause(text: str, longest: int = LONGEST) -> str:
    """The first cause in what a build tool, a compiler or a build backend has printed, with what follows it, on one line.

    It is the exception of the first traceback, not that of the tools which it passed through; else the first line with an error.
    """
    lines = [line for line in text.splitlines() if line.strip() and not TOOL_NOISE.match(line)]
    header = next((index for index, line in enumerate(lines) if HEADER in line), None)
    pattern, begin = (TOOL_ERROR.search, 0) if header is None else (EXCEPTION.match, header + 1)
    start = next((index for index in range(begin, len(lines)) if pattern(lines[index])), header or 0)
    return shortened(" ".join(lines[start:]), longest)


def end_of_chain(lines: list[str], header: int) -> str:
    """The exception that a traceback ends with; of a chain the last one, of a group the first one inside.

    :param header: index of its first line.
    :returns: the exception; empty where the traceback has no end.
    """
    inline = lines[header].partition(HEADER)[2].replace("\\n", "\n")
    if "\n" in inline:  # a logger that writes JSON: the whole traceback is in this line
        return end_of_chain([HEADER, *re.split(r'(?<!\\)"', inline, maxsplit=1)[0].split("\n")[1:]], 0)
    cause, index, in_group = "", header + 1, False
    while index < len(lines):
        line = MARGIN.sub("", lines[index]) if lines[index].lstrip()[:1] in MARKS else lines[index]
        if EXCEPTION.match(line):
            if GROUP.match(line):
                cause, in_group = cause or line, True
            else:
                cause = with_continuation(lines, index, line)
                following = next_in_chain(lines, index)
                if not following:
                    return shortened(cause)
                index = following
        elif in_group and line.strip() and lines[index].lstrip()[:1] not in MARKS:
            break
        index += 1
    return shortened(cause)


def next_in_chain(lines: list[str], index: int) -> int:
    """Index of the header of the next traceback in a chain; 0 when an exception was the last."""
    for number in range(index + 1, len(lines)):
        if lines[number].strip(" |") in CHAINED:
            return next((each for each in range(number + 1, min(number + 4, len(lines))) if HEADER in lines[each]), 0)
        if HEADER in lines[number] or LOG_HEAD.match(lines[number]).end():  # type: ignore[union-attr]
            break
    return 0


def with_continuation(lines: list[str], index: int, text: str) -> str:
    """A message with the lines that it announces: those after a colon, and what pydantic refuses."""
    for line in lines[index + 1 : index + 3]:
        if not CONTINUES.search(text) or not line.strip() or HEADER in line:
            break
        text = f"{text} {line.strip(' |')}"
    return text


def without_log_head(line: str) -> str:
    return LOG_HEAD.sub("", line.strip(), count=1) or line.strip()


def shortened(text: str, longest: int = LONGEST) -> str:
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= longest else text[:longest] + "..."


def is_named_error(line: str) -> bool:
    return bool(NAMED_ERROR.match(without_log_head(line)))


def is_error(line: str) -> bool:
    return bool(AN_ERROR.search(line)) and not HARMLESS.search(line) and not CONSEQUENCE.search(line)


def is_consequence(line: str) -> bool:
    return bool(CONSEQUENCE.search(line)) and not HARMLESS.search(line)


def is_last_word(line: str) -> bool:
    """Is this what a program itself wrote before it ended, such as the message of ``sys.exit``?"""
    return has_text(line) and not CHATTER.search(line) and not CONSEQUENCE.search(line)


def has_text(line: str) -> bool:
    return bool(line.strip())


def hint(cause: str) -> str:
    """What to do about a cause, a sentence; empty where that is not certain."""
    return next((text for pattern, text in HINTS if re.search(pattern, cause)), "")


def explain(problem: str, lines: list[str], ended: bool = True) -> tuple[str, list[str]]:
    """A problem with its first cause and what to do about it, and the lines to show.

    :param problem: what was seen from outside, a sentence.
    :param lines: what the program has printed.
    :param ended: has the program ended? Then its last line may be the cause, too.
    """
    problem = problem.rstrip(".")
    index, cause = first_cause(lines)
    certain = bool(cause) and is_certain(lines[index])
    if not (certain or ended) or problem.endswith(cause):
        cause = ""
    sentence = f"{problem}: {cause}." if cause else f"{problem}."
    advice = hint(sentence)
    return f"{sentence} {advice}" if advice else sentence, lines[index:][:SHOWN] if certain else lines[-TAIL:]


def is_certain(line: str) -> bool:
    """Is this line, where a cause begins, more than the last one that was printed?"""
    return HEADER in line or is_named_error(line) or is_error(line) or is_consequence(line)
