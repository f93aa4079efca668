"""The store: blobs by digest on a persistent disk, crash-safe, capped, and how they get there."""
