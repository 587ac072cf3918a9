//! Packets and checksums for tests.
