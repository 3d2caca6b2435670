# SPDX-License-Identifier: Apache-2.0
"""The field Retry-After (RFC 9110 §10.2.3)."""

import datetime as dt
import email.utils
from typing import Final

__all__ = ["MAX_RETRY_AFTER_SECONDS", "parse_retry_after"]

#: Whoever asks for more than a day is not believed.
MAX_RETRY_AFTER_SECONDS: Final = 86_400.0


def parse_retry_after(text: str, now: dt.datetime) -> float | None:
    """Seconds of a number or an HTTP date; None if it is neither."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return min(float(text[:9]), MAX_RETRY_AFTER_SECONDS)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    seconds = (moment - now).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
