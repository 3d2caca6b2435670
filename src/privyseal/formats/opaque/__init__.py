# SPDX-License-Identifier: Apache-2.0
"""Formats whose preimage shows only a digest: signed for key profiles that list them under `opaque`, and no others."""

from privyseal.formats.opaque.digest import DIGEST

__all__ = ["DIGEST"]
