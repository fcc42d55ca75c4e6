//! The run worker with real programs, a real NATS, and an owner that says what the test wants.
