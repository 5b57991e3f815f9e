"""The records, the pure steps on them, and what touches a file: imports nothing else of metaopt."""
