"""Latency by scenario: single-stream, offline, camera, batch sizes. Raw samples kept, warm-up apart, copies inside."""
