"""The work itself: edit it as often as you like, the build stays."""

import sys

import numpy

most = int(sys.argv[1]) if len(sys.argv) > 1 else 100
table = numpy.loadtxt("squares.csv", delimiter=",", dtype=int)
print("sum of squares:", table[:most, 1].sum())
