"""Speech separation, enhancement and audio classification.."""
