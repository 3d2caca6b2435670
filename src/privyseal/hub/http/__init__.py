# SPDX-License-Identifier: Apache-2.0
"""The hub's HTTP edge: one route table, its listeners, one file per resource."""
