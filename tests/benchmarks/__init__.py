"""What benchmarks compute of what they measured, and that what they compare is the same: no time is asserted."""
