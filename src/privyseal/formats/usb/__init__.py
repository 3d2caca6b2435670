# SPDX-License-Identifier: Apache-2.0
"""USB leases: requests in a token's queue that ask for the whole device, and not for a signature."""

from privyseal.formats.usb.lease import LEASE, LeaseOrder, lease_preimage, read_lease

__all__ = ["LEASE", "LeaseOrder", "lease_preimage", "read_lease"]
