"""The unattended service, composed of the stages."""
