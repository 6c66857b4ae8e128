"""The real parts: installs Nomad, Consul, Envoy and friends, and runs a local cluster of them."""
