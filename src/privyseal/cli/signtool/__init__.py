# SPDX-License-Identifier: Apache-2.0
"""`privyseal signtool`: a front with the command line of Microsoft's SignTool, for builds that call it already.

Written after its documentation; see docs/signtool.md for what each flag does here.
"""
