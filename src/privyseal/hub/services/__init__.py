# SPDX-License-Identifier: Apache-2.0
"""What the hub does, apart from how it is asked: enrolment, requests, dispatch, proofs."""
