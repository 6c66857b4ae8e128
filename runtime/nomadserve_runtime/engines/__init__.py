"""One module per engine; each is the only door to its library, and has `load(model)`."""
