"""What building and running engines share: the two flavours of TensorRT, and its words as ours.

`flavours` holds every difference between TensorRT and TensorRT for RTX and between their versions; `messages` turns
what TensorRT says into sentences with a remedy. Importing them loads nothing of TensorRT.
"""
