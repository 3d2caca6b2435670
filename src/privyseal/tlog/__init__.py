# SPDX-License-Identifier: Apache-2.0
"""Tiled transparency log after C2SP: tree, tiles, proofs, signed notes, checkpoints and receipts. Pure."""
