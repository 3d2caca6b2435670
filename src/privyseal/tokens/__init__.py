# SPDX-License-Identifier: Apache-2.0
"""Adapters of the Token port: PKCS#11 modules and encrypted key files, each in a worker process."""
