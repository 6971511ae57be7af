"""Complete, current, daily Parquet tables of a contact centre's calls, from an API that serves one call at a time."""
