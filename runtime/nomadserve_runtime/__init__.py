"""The inference runtime: HTTP in front of a dynamic batcher in front of one engine."""
