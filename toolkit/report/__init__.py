"""Measurements -> what people read: a terminal table, one HTML page, Markdown for a pull request, JUnit XML for CI."""
