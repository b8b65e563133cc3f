"""Count the primes below a number (an argument), and say where this runs."""

import platform
import sys

limit = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
sieve = bytearray([1]) * limit
sieve[:2] = b"\0\0"
for n in range(2, int(limit**0.5) + 1):
    if sieve[n]:
        sieve[n * n :: n] = bytes(len(range(n * n, limit, n)))

print(f"Python {platform.python_version()} on {platform.system()}")
print(f"{sum(sieve)} primes below {limit}")
