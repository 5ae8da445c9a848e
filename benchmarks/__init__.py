"""What things cost; `python3 dev.py bench NAME`."""
