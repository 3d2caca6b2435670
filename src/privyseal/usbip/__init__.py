# SPDX-License-Identifier: Apache-2.0
"""USB/IP and what goes through it, as values and state machines without input or output.

Imports the standard library and `privyseal.errors` alone.
"""
