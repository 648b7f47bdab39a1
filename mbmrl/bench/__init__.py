"""How fast it is on this machine: the tick, plans, meta-training, the simulation."""
