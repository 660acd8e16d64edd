"""The binaries: flags, gin, and one call each."""
