"""What the machine is: files, folders, progress, signals, devices, memory."""
