"""The single checks behind `runkon_server.dsl.check`: one module for each subject."""
