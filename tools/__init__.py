"""What the developers' task runner (`dev.py`) is made of; standard library only, never shipped."""
