"""The built-in search spaces as files, and the reader of such files."""
