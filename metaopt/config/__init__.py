"""What a run is, in words: records, names and where they lead."""
