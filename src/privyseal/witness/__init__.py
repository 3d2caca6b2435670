# SPDX-License-Identifier: Apache-2.0
"""A witness: cosigns checkpoints of the logs it knows, each only if it extends the one before (C2SP tlog-witness)."""
