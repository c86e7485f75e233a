"""Files that are copied into what a handoff writes, and run there: none of them is imported by the toolkit."""
