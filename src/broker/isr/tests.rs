//! Which changes are asked for, and what becomes of the answers.
