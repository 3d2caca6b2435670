# SPDX-License-Identifier: Apache-2.0
"""Privyseal: one hardware signing token, every build server."""

__version__ = "0.1.0.dev0"
