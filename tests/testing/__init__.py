"""Tests of what `runkon_client.testing` gives to its users."""
