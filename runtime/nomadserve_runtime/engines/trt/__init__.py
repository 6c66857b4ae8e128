"""TensorRT: `bindings` finds it, `cache` answers with the plan of a model, built once for every replica of a node."""
