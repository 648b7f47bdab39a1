"""Window of transitions → adapted parameters: one file a learner, all pure functions."""
