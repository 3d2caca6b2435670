# SPDX-License-Identifier: Apache-2.0
"""The Protocols through which effects enter. Their doc comments are the contracts that adapters are tested by."""
