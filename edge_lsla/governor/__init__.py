"""How fast to watch: temperature, power mode and battery."""
