//! Sockets: listening and sending, files included (`sendfile`).
