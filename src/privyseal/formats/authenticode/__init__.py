# SPDX-License-Identifier: Apache-2.0
"""Authenticode: signatures that Windows checks, inside the files that they sign."""

from privyseal.formats.authenticode.pe import PE

__all__ = ["PE"]
