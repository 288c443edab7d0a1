"""Export, calibrate, build and run ViT-LSLA classifiers on edge devices."""
