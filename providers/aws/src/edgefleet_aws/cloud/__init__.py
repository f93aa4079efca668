"""What the mock of AWS is made of."""
