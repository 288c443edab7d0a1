"""The ViT-LSLA model: `config` (no torch), `vit_lsla`, `checkpoint`, `profile`; each imported by its full name."""
