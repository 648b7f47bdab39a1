"""How an adapted model is rolled out: one interface, and the fastest that this machine offers."""
