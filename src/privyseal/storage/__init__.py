# SPDX-License-Identifier: Apache-2.0
"""Adapters of the Store and Journal ports."""
