"""The machine: devices, precision, signals and what is installed."""
