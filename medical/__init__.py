"""Segmentation and classification of medical images and volumes.."""
