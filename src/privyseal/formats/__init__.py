# SPDX-License-Identifier: Apache-2.0
"""File formats: what is hashed, what is signed, where the signature goes. Pure: bytes in, bytes out."""
