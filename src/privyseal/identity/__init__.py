# SPDX-License-Identifier: Apache-2.0
"""Who is who: the trust bundle, the hub's TLS CA, join codes, authority statements, private key files."""
