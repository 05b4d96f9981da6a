//! Transcripts, cases and properties of the group coordinator.

mod cases;
mod proptests;
mod transcripts;
mod world;
