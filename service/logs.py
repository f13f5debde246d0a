"""Log lines: for people on a console, or one JSON object a line for collectors.

Path: logging → **logs** → stderr. Messages never hold image contents.
"""

import datetime
import json
import logging


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, and the trace of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        entry = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def set_up(log_format: str, level: str) -> None:
    """Send everything of at least `level` to stderr as "console" or "json"."""
    handler = logging.StreamHandler()
    console = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    handler.setFormatter(JsonFormatter() if log_format == "json" else console)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
