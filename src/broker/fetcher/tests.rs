//! Fetchers against leaders in memory.
