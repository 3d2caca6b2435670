# SPDX-License-Identifier: Apache-2.0
"""USB devices of this host: found in sysfs, reset, power-cycled. Linux only.

Imports the standard library and `privyseal.errors` alone, so that it runs where nothing is installed.
"""
