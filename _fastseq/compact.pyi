# Offers nothing to Python: see the .pxd.
