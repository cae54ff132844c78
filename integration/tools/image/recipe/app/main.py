#!/usr/bin/python3
"""Computes what anybody can check, to show that a container really runs.

It imports next to nothing: under an emulated processor every module counts.
"""
import os
import sys


def settings(path):
    """Reads "name = number" lines."""
    found = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if "=" in line and not line.startswith("#"):
                name, value = line.split("=", 1)
                found[name.strip()] = int(value)
    return found


def primes(limit):
    """The sieve of Eratosthenes."""
    sieve = bytearray([1]) * limit
    sieve[:2] = b"\0\0"
    for i in range(2, int(limit**0.5) + 1):
        if sieve[i]:
            sieve[i * i :: i] = bytes(len(range(i * i, limit, i)))
    return [i for i in range(limit) if sieve[i]]


def pi(digits):
    """Machin's formula in integers, ten digits more than asked for."""
    one = 10 ** (digits + 10)

    def arctan_of_inverse(x):
        power = total = one // x
        n, sign = 3, -1
        while power:
            power //= x * x
            total += sign * (power // n)
            n, sign = n + 2, -sign
        return total

    text = str(4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239)))
    return text[0] + "." + text[1 : digits + 1]


def words(directory):
    """Counts the files of a directory and the words in them."""
    files = count = 0
    for entry in os.scandir(directory):
        with open(entry.path, encoding="utf-8") as text:
            files, count = files + 1, count + len(text.read().split())
    return files, count


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    wanted = settings(os.path.join(here, "settings.ini"))
    found = primes(wanted["limit"])
    print("python {}.{}.{}".format(*sys.version_info))
    print(f"primes below {wanted['limit']}: {len(found)}, the last {found[-1]}")
    print(f"pi: {pi(wanted['digits'])}")
    print("words: {1} in {0} files".format(*words(os.path.join(here, "words"))))


if __name__ == "__main__":
    main()
