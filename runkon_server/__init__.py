"""The Runkon server: a durable workflow service on PostgreSQL."""
