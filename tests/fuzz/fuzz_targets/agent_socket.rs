//! Frames of an agent on a WebSocket: no frame, in whatever order, makes the edge panic or send an invalid message.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| quintet_edge::fuzz::agent_session(input));
