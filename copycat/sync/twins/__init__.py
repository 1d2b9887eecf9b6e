"""The blocking classes, one file for each file of the originals; generated, do not edit.

See `copycat.sync.generate`; what they stand on is beside this package.
"""
