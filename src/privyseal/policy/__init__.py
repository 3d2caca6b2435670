# SPDX-License-Identifier: Apache-2.0
"""Who may have what signed: request and facts in, a decision with reasons out. Pure and total."""
