//! Every provider against a scripted server on loopback that speaks its protocol, written from its public documentation.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's helpers fail the test")]

mod anthropic;
mod every;
mod fake;
mod gemini;
mod ollama;
mod openai;
mod openai_dialects;
mod openai_request;
mod responses;
mod sdk;
