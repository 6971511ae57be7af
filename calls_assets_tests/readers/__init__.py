"""Every tool that reads Parquet, on a finished lake and without our help."""
