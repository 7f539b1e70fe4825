"""Uses an image from Python, with nothing of Kiln:

    cargo xtask build crates/kiln-image/examples/hosts/counter.clif -o counter.so
    python3 crates/kiln-image/examples/hosts/host.py ./counter.so
"""

import ctypes
import sys

image = ctypes.CDLL(sys.argv[1])
total = ctypes.c_int64(40)


@ctypes.CFUNCTYPE(None, ctypes.c_int64)
def report(value):
    print("the total is", value)


# What the image needs, in the order in which `cargo xtask inspect counter.so` lists its slots. The
# objects must live as long as the image is used.
slots = (ctypes.c_void_p * 2).in_dll(image, "kiln_slots")
slots[0] = ctypes.addressof(total)
slots[1] = ctypes.cast(report, ctypes.c_void_p)

image.add.argtypes = [ctypes.c_int64]
image.add.restype = ctypes.c_int64
print(image.add(2))
