# SPDX-License-Identifier: Apache-2.0
"""The agent: beside the token, dials out to its hub, signs only what it has checked itself."""
