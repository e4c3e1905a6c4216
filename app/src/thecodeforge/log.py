"""JSON log lines on standard output: one a line, flushed at once. Other loggers are left to the server."""

import json
import logging
import sys
from datetime import UTC, datetime

logger = logging.getLogger("thecodeforge")


class JsonFormatter(logging.Formatter):
    """Time, level, logger and message, then what was given as ``extra={"fields": {...}}``."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(level: str) -> None:
    """Give the app's own logger, and no other, its handler. Calling it again replaces the handler."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(level)
