//! Checkpoint containers: safetensors and torch archives.
