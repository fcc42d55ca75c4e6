//! Bodies of HTTP requests: reading and checking one never panics, and what is accepted arrives on the bus as it is.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| quintet_edge::fuzz::request(input));
