# SPDX-License-Identifier: Apache-2.0
"""Revisions of a hub's tables; `storage/schema.py` runs them."""
