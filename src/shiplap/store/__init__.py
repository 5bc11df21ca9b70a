"""KEEPS: blobs, snapshots (overlay, copy), index (sqlite), leases, garbage collection, locks."""
