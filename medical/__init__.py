"""Medical imaging: segmentation and classification of images and volumes. Not built yet."""
