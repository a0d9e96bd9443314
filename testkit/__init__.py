"""What tests and benchmarks run the service with: real servers and processes, and a fake outside world."""
