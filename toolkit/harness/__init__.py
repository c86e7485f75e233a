"""Runners -> measurements: latency, throughput, load and accuracy, with what makes each number one to trust."""
