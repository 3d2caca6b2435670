# SPDX-License-Identifier: Apache-2.0
"""The command line: a module per noun, each command a few lines over the SDK."""
