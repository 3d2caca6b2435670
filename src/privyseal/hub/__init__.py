# SPDX-License-Identifier: Apache-2.0
"""The hub: policy, queue, leases and the log. It holds no signing key and no PIN."""
