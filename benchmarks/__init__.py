"""The benchmark of the runtime against its peers: `scripts/bench`; see README.md here."""
