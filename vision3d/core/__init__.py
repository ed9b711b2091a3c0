"""What everything else stands on: errors, configuration, runs, devices, the native module."""
