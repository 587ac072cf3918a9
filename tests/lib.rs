//! Shared by the system tests: where the built binaries are, and how a daemon is started and ended.
