"""The libraries that compile and run a graph. Each module has the same two functions, `compile` and `open`, and is the only
place that imports its library."""
