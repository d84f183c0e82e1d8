"""Audio: speech separation, enhancement and classification. Not built yet."""
