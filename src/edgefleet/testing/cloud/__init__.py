"""What mock clouds of several vendors are made of: a server, faults on demand, what they keep."""
