"""The numbered statements on the language, each shown in memory and on the live server."""
