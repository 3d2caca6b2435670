# SPDX-License-Identifier: Apache-2.0
"""The stream of a USB lease between client and agent: the channel, and its ways, through a hub or direct."""
