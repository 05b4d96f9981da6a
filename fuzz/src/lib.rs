//! What the fuzz targets do with their bytes, one module a room. A target is a function of
//! `&[u8]` that panics when it has found something; `fuzz_targets/` only names them.

pub mod config;
pub mod protocol;
