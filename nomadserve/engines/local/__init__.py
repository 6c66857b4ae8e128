"""A real cluster on this machine's loopback: a Consul server, a Nomad server and client, and the platform."""
