# SPDX-License-Identifier: Apache-2.0
"""Certificates, CMS and timestamps: bytes in, frozen values out. Pure: no clock, no files, no network."""
