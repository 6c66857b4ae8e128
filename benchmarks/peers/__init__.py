"""One server per file, each written as its documentation recommends; `benchmarks.catalogue` describes them."""
