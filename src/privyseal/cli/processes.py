# SPDX-License-Identifier: Apache-2.0
"""Logs on stderr; for long-running commands, a clean end on SIGINT and SIGTERM."""

import asyncio
import logging
import signal
import sys

import structlog

__all__ = ["configure_logging", "keep_to_errors", "stop_signal"]


def configure_logging() -> None:
    """Structured logs to stderr: readable on a terminal, JSON Lines otherwise.

    Tracebacks are plain: those that show local variables would show join secrets and preimages.
    """
    _configure(logging.INFO)


def keep_to_errors() -> None:
    """The same for a command that ends by itself and says what it did: errors only."""
    _configure(logging.ERROR)


def _configure(level: int) -> None:
    renderer: structlog.types.Processor = structlog.processors.JSONRenderer()
    if sys.stderr.isatty():
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def stop_signal() -> asyncio.Event:
    """Set by SIGINT or SIGTERM from now on; ask for it before anything is started that must be stopped well."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop
