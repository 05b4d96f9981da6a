//! Stock clients and tools against the real binary, and the same scenario against Apache Kafka.
