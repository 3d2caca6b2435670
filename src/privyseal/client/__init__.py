# SPDX-License-Identifier: Apache-2.0
"""The client: hashes and embeds where the file is; only the small structures that are signed travel."""
