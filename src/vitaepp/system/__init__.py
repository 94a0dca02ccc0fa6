"""What the machine is: files, folders, URLs, messages, signals, cores, memory, devices."""
