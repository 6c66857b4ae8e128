"""The log of the process: for people as text, for machines as one JSON object a line; to stderr, or to a file."""

import json
import logging
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from typing import Any

from nomadserve_runtime.errors import WrongSetting

# A file is moved aside when it is that long; that many of them are kept. Nomad rotates stderr by itself.
FILE_NBYTES_MAX = 50 * 1024 * 1024
FILES_KEPT = 5

# One line per answered request; nobody writes to it unless it was asked for.
access_log = logging.getLogger("nomadserve.access")


def start_log(*, level: str, form: str, path: str, is_access_logged: bool) -> None:
    """Set the logging of the whole process up.

    level: of our own loggers; libraries only warn.  form: `text` or `json`.  path: of a file, or empty for stderr.

    Raises:
        WrongSetting: the file can't be written.
    """
    handler = _handler(path)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("nomadserve").setLevel(level.upper())
    access_log.setLevel(logging.INFO if is_access_logged else logging.CRITICAL)


def fields(**values: Any) -> dict[str, Any]:
    """`extra` of a log call: named values beside the message, without those that are empty."""
    return {"fields": {name: value for name, value in values.items() if value not in ("", None)}}


def _handler(path: str) -> logging.Handler:
    if not path:
        return logging.StreamHandler(sys.stderr)
    try:
        return RotatingFileHandler(path, maxBytes=FILE_NBYTES_MAX, backupCount=FILES_KEPT, encoding="utf-8")
    except OSError as error:
        raise WrongSetting(
            f"can't write the log to `{path}`: {error.strerror}", hint="check `NOMADSERVE_LOG_FILE`, or leave it away"
        ) from error


class TextFormatter(logging.Formatter):
    """`2026-01-02 03:04:05,678 INFO    nomadserve.main: serving …`, with the fields behind it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """One line, whatever a client put into a field."""
        named = "".join(f" {name}={_word(value)}" for name, value in getattr(record, "fields", {}).items())
        return super().formatMessage(record) + named


class JsonFormatter(logging.Formatter):
    """`{"time": …, "level": "info", "logger": "nomadserve.main", "message": …}`, and the fields beside."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        content = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return json.dumps(content, ensure_ascii=False, default=str)


def _word(value: Any) -> str:
    """A value that can't be taken for two, or for another line."""
    text = str(value)
    return text if text.isprintable() and " " not in text and '"' not in text else json.dumps(text)
